-- Copyright (c) 2026 The umbra.rollback authors
-- GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- Schema 2: customers have a full name and a given name, orders have a total, products a currency.
ALTER TABLE customers RENAME COLUMN name TO full_name;
ALTER TABLE customers ADD COLUMN given_name TEXT;
UPDATE customers SET given_name = substr(full_name, 1, instr(full_name, ' ') - 1);
ALTER TABLE products ADD COLUMN currency TEXT NOT NULL DEFAULT 'EUR';
ALTER TABLE orders ADD COLUMN total_cents INTEGER;
UPDATE orders SET total_cents = quantity * (SELECT price_cents FROM products WHERE products.id = product_id);
CREATE INDEX orders_by_customer ON orders (customer_id);
