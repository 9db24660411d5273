# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies of several hosts joined: what names mean, what claims show, and what a wrong name is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import InputError, ToolMissing
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Claim, Manifest
from ansible_collections.umbra.rollback.plugins.plugin_utils import graph
from ansible_collections.umbra.rollback.tests.unit.support.manifests import manifest, shadow

SOCKET = "/run/db.sock"
PROVIDES = Claim("provides", "socket", SOCKET, "unit db.socket")
USES = Claim("uses", "socket", SOCKET, "/etc/app.ini:12")


def shop(**needs: list[str]) -> dict[str, Manifest]:
    """Two web servers with an app and its configuration, and a database server; `needs` of the first app."""
    return {
        "web1": manifest("web1", shadow("config"), shadow("app", needs.get("app", ()))),
        "web2": manifest("web2", shadow("config"), shadow("app")),
        "db1": manifest("db1", shadow("db"), shadow("db-files")),
    }


def pairs(found: graph.Dependencies) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) for edge in found.edges()]


@pytest.mark.parametrize("need", ["config", "web1:config"])
def test_a_bare_name_is_on_the_same_host(need: str) -> None:
    assert pairs(graph.join(shop(app=[need]))) == [("web1:app", "web1:config")]


def test_a_name_with_a_host_is_on_that_host() -> None:
    found = graph.join(shop(app=["db1:db", "web2:config"]))
    assert found.needs("web1:app") == ["db1:db", "web2:config"]


def test_names_and_hosts_may_have_colons_themselves() -> None:
    manifests = {
        "::1": manifest("::1", shadow("container:db"), shadow("app", ["container:db"])),
        "web": manifest("web", shadow("app", ["::1:container:db"])),
    }
    assert pairs(graph.join(manifests)) == [("::1:app", "::1:container:db"), ("web:app", "::1:container:db")]


def test_two_resources_that_would_be_told_apart_by_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="a:b:c stands for two of them"):
        graph.join({"a": manifest("a", shadow("b:c")), "a:b": manifest("a:b", shadow("c"))})


EXTRA = [
    ({"web1:app": ["config"]}, [("web1:app", "web1:config")]),  # on its own host first
    ({"web1:app": ["db"]}, [("web1:app", "db1:db")]),  # the only one anywhere
    ({"db": ["web2:config"]}, [("db1:db", "web2:config")]),
    ({"db": []}, []),
]


@pytest.mark.parametrize(("extra", "expected"), EXTRA)
def test_extra_dependencies(extra: dict[str, list[str]], expected: list[tuple[str, str]]) -> None:
    assert pairs(graph.join(shop(), extra)) == expected


def test_a_claim_that_is_used_meets_the_one_that_is_provided() -> None:
    found = graph.join({"h": manifest("h", shadow("db", claims=[PROVIDES]), shadow("app", claims=[USES]))})
    evidence = f"socket {SOCKET}: used (/etc/app.ini:12), provided (unit db.socket)"
    assert found.edges() == [graph.Edge("h:app", "h:db", False, True, (evidence,))]


NO_MEETING = [
    (USES, Claim("provides", "path", SOCKET, "")),
    (USES, Claim("provides", "socket", "/run/other.sock", "")),
    (USES, USES),
    (PROVIDES, PROVIDES),
]


@pytest.mark.parametrize(("one", "other"), NO_MEETING)
def test_claims_of_other_kinds_values_or_roles_do_not_meet(one: Claim, other: Claim) -> None:
    assert pairs(graph.join({"h": manifest("h", shadow("a", claims=[one]), shadow("b", claims=[other]))})) == []


def test_claims_do_not_meet_across_hosts_nor_within_one_resource() -> None:
    manifests = {
        "h1": manifest("h1", shadow("a", claims=[USES, PROVIDES])),
        "h2": manifest("h2", shadow("b", claims=[PROVIDES])),
    }
    assert pairs(graph.join(manifests)) == []


def test_what_is_declared_and_claimed_is_one_edge_with_all_its_evidence() -> None:
    app = shadow("app", ["db"], claims=[USES])
    (edge,) = graph.join({"h": manifest("h", shadow("db", claims=[PROVIDES]), app)}, {"app": ["db"]}).edges()
    assert (edge.declared, edge.claimed, len(edge.evidence)) == (True, True, 3)


def test_evidence_of_one_edge_is_bounded() -> None:
    uses = [Claim("uses", "port", str(n), f"pid {n}") for n in range(100)]
    provides = [Claim("provides", "port", str(n), f"fd {n}") for n in range(100)]
    (edge,) = graph.join({"h": manifest("h", shadow("db", claims=provides), shadow("app", claims=uses))}).edges()
    assert len(edge.evidence) == graph.EVIDENCE_KEPT


WRONG: list[tuple[list[str], Any, str]] = [
    (["confg"], None, "depends_on: app on web1 depends on 'confg', which nothing shadows. Did you mean 'config'?"),
    (["web2:confg"], None, "app on web1 depends on 'web2:confg', which nothing shadows. Did you mean 'config'?"),
    (["db"], None, "app on web1 depends on 'db', which nothing shadows. Did you mean 'db1:db'?"),
    (["zzz"], None, "which nothing shadows. Shadow it too, or take this dependency out."),
    ([], {"db": ["config"]}, "db on db1 depends on 'config', which is on 2 hosts. Say which one, as web1:config or"),
    (
        [],
        {"app": ["db"]},
        "'app' is to depend on something, which is on 2 hosts. Say which one, as web1:app or web2:app.",
    ),
    ([], {"ap": ["db"]}, "'ap' is to depend on something, which nothing shadows. Did you mean 'app'?"),
    ([], {"web1:ap": ["db"]}, "'web1:ap' is to depend on something, which nothing shadows. Did you mean 'app'?"),
    ([], {"db": "config"}, "what 'db' needs is not a list of names."),
    ([], {"db": [1]}, "what 'db' needs is not a list of names."),
    ([], ["db"], "is list, not a dictionary."),
]


@pytest.mark.parametrize(("needs", "extra", "sentence"), WRONG)
def test_a_wrong_name_gets_one_sentence(needs: list[str], extra: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        graph.join(shop(app=needs), extra)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("depends_on: ")
    assert "\n" not in str(caught.value)


def test_a_host_that_is_not_analyzed_is_a_warning_and_orders_nothing() -> None:
    found = graph.join(shop(app=["cache9:redis"]))
    assert found.elsewhere == {"web1:app": ("cache9:redis",)}
    assert pairs(found) == []
    assert found.warnings == (
        "web1:app depends on 'cache9:redis', which is on no host of this analysis (db1, web1, web2): "
        "the way back does not wait for it.",
    )


def test_a_mistyped_name_with_a_colon_is_no_other_host() -> None:
    with pytest.raises(InputError, match="Did you mean 'container:db'"):
        graph.join({"h": manifest("h", shadow("container:db"), shadow("app", ["contaner:db"]))})


def test_a_loop_is_walked_once_round() -> None:
    found = graph.join({"h": manifest("h", shadow("a", ["b"]), shadow("b", ["c"]), shadow("c", ["a", "b"]))})
    path = found.loop({"h:a", "h:b", "h:c"})
    assert path[0] == path[-1]
    assert all(need in found.needs(node) for node, need in zip(path, path[1:], strict=False))


def test_essential_leaves_out_what_others_imply_and_keeps_what_is_in_a_cycle() -> None:
    assert graph.essential([(1, 2), (2, 3), (1, 3)]) == {(1, 2), (2, 3)}
    assert graph.essential([(1, 2), (2, 1), (2, 3)]) == {(1, 2), (2, 1), (2, 3)}


def test_without_networkx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "networkx", None)
    with pytest.raises(ToolMissing, match="networkx") as caught:
        graph.join(shop())
    assert "pip install networkx" in str(caught.value)
