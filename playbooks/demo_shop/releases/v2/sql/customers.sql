-- Copyright (c) 2026 The umbra.rollback authors
-- GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- The bug of this release: its own migration renamed this column to full_name.
SELECT id, name, given_name, email, city FROM customers ORDER BY id
