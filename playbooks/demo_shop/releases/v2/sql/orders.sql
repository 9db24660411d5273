-- Copyright (c) 2026 The umbra.rollback authors
-- GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
SELECT orders.id, full_name AS customer, products.title AS product, quantity, total_cents, currency, placed_at
FROM orders JOIN customers ON customers.id = customer_id JOIN products ON products.id = product_id
ORDER BY orders.id
