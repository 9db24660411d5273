-- Copyright (c) 2026 The umbra.rollback authors
-- GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
SELECT sku, title, price_cents / 100.0 AS price FROM products ORDER BY sku
