# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `module_utils.human` has, and texts of others as HTML takes them."""

from __future__ import annotations

from html import escape

from ..module_utils.human import clean, count, duration, percent, size

__all__ = ["clean", "count", "duration", "markup", "percent", "size"]


def markup(text: str) -> str:
    """The lines of a text, each cleaned, for HTML: between tags, or inside a quoted attribute."""
    return escape("\n".join(clean(line) for line in text.split("\n")))
