"""Which budgets and limits bind a request: all of them, each once, and none of another tenant's."""

from itertools import product

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys import Key
from gateway.scopes import (
    Bound,
    Budget,
    Limits,
    Rules,
    Scope,
    binding,
    changed_rules,
    compile_rules,
    static_binding,
    window,
)

KEY = Key("key_1", "a", "team_1", org_id="org_1", user_id="user_1")


def scope(kind: str, id_: str, within: str = "") -> Scope:
    return msgspec.convert({"kind": kind, "id": id_, "within": within}, Scope)


def budget(id_: str, *standing_on: str) -> Budget:
    return Budget(id_, scope(*standing_on), 1_000, "total")


def bound(rules: Rules, key: Key = KEY, customer: str | None = None, tags: tuple[str, ...] = ()) -> tuple[Bound, ...]:
    return binding(static_binding(rules, key, "chat", "openai"), customer, tags)


def accounts(found: tuple[Bound, ...]) -> list[str]:
    return [each.account for each in found]


def test_every_scope_of_a_request_binds_it() -> None:
    """Organisation, team, user, key, model, provider, customer and each tag, all at once."""
    scopes = ["org org_1", "team team_1", "user user_1", "key key_1", "model chat", "provider openai"]
    dynamic = ["customer alice", "tag a", "tag b"]
    rules = compile_rules([budget(f"bud_{n}", *each.split()) for n, each in enumerate(scopes + dynamic)], [])
    assert accounts(bound(rules)) == [f"b:bud_{n}" for n in range(6)]
    assert accounts(bound(rules, customer="alice", tags=("b", "a", "b", "c"))) == [
        *(f"b:bud_{n}" for n in range(7)),
        "b:bud_8",
        "b:bud_7",
    ]


def test_others_are_not_bound() -> None:
    """A key without a team has nothing of any team's."""
    every = [f"{kind} {kind}_2" for kind in ("org", "team", "user", "key", "model", "provider", "customer", "tag")]
    rules = compile_rules([budget(f"bud_{n}", *each.split()) for n, each in enumerate(every)], [])
    assert bound(rules, customer="alice", tags=("a",)) == ()
    assert bound(rules, key=Key("key_9", "bare")) == ()


def test_a_rule_within_an_organisation_binds_no_other() -> None:
    """One tenant's customer `alice`, model or tag is nothing to another; a rule of the whole platform binds both."""
    rules = compile_rules(
        [
            budget("bud_1", "customer", "alice", "org_1"),
            budget("bud_2", "customer", "alice", "org_2"),
            budget("bud_3", "customer", "alice"),
            budget("bud_4", "model", "chat", "team_1"),
            budget("bud_5", "key", "*", "team_1"),
        ],
        [],
    )
    other = Key("key_2", "b", "team_2", org_id="org_2")
    assert accounts(bound(rules, customer="alice")) == ["b:bud_5/key_1", "b:bud_4", "b:bud_3", "b:bud_1"]
    assert accounts(bound(rules, other, customer="alice")) == ["b:bud_3", "b:bud_2"]


def test_a_template_applies_to_each_id_separately() -> None:
    """`customer *` gives every customer an account of its own, beside what stands on one by name."""
    rules = compile_rules(
        [budget("bud_each", "customer", "*"), budget("bud_alice", "customer", "alice")],
        [Limits("lim_each", Scope("customer", "*"), rpm=60, parallel=1)],
    )
    alice = ["b:bud_alice", "b:bud_each/alice", "l:lim_each/alice:rpm", "p:lim_each/alice"]
    assert accounts(bound(rules, customer="alice")) == alice
    assert accounts(bound(rules, customer="bob")) == [account.replace("alice", "bob") for account in alice[1:]]
    assert all(each.scope.id == "bob" for each in bound(rules, customer="bob"))
    assert bound(rules) == ()


@given(st.sets(st.text(max_size=100), min_size=2, max_size=8))
def test_no_two_customers_share_an_account(customers: set[str]) -> None:
    """Not `*` itself, not `a/b`, not a very long one: whatever clients send."""
    rules = compile_rules(
        [budget("bud_1", "customer", "*")], [Limits("lim_1", Scope("customer", "*"), tpm=1, rpd=1, parallel=1)]
    )
    found = [window(each, 1e9).charged for customer in customers for each in bound(rules, customer=customer)]
    assert len(set(found)) == 4 * len(customers)
    assert all(len(account) < 200 and account.isascii() for account in found)


def test_limits_become_one_number_each() -> None:
    """With the rate per second and what a full bucket holds."""
    limits = Limits("lim_1", Scope("key", "key_1"), rpm=60, tpm=6_000, input_tpm=1, token_burst=0.5, request_burst=2)
    found = [(each.measure, each.rate_per_s, each.amount(0), each.kind) for each in limits.each()]
    assert found == [("rpm", 1, 120, "bucket"), ("tpm", 100, 3_000, "bucket"), ("input_tpm", 1 / 60, 1, "bucket")]


SCOPES = [scope(*parts) for parts in product(("key", "customer"), ("a", "*"), ("", "org_1"))]
CHANGES = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=12)


@given(CHANGES)
def test_rules_changed_one_by_one_equal_rules_compiled_at_once(changes: list[tuple[int, bool, bool]]) -> None:
    """A process that followed every edit and one that has just started bind the same."""
    rules, budgets, limits = Rules(), dict[str, Budget](), dict[str, Limits]()
    for count, (number, is_budget, gone) in enumerate(changes):
        id_ = f"{'bud' if is_budget else 'lim'}_{number}"
        changed: Budget | Limits
        if is_budget:
            changed = Budget(id_, SCOPES[number], count, "total")
            budgets[id_] = changed
            rules = changed_rules(rules, {id_: None if gone else changed}, {})
        else:
            changed = Limits(id_, SCOPES[number], rpm=count + 1, parallel=1)
            limits[id_] = changed
            rules = changed_rules(rules, {}, {id_: None if gone else changed})
        if gone:
            (budgets if is_budget else limits).pop(id_)
    assert rules == compile_rules(budgets.values(), limits.values())


def test_a_request_without_customer_and_tags_costs_no_search() -> None:
    """The cached part itself is returned: the common case allocates nothing."""
    rules = compile_rules([budget("bud_1", "key", "key_1"), budget("bud_2", "customer", "*")], [])
    static = static_binding(rules, KEY, "chat", "openai")
    assert binding(static, None, None) is static.bound
    bare = static_binding(compile_rules([budget("bud_1", "key", "key_1")], []), KEY, "chat", "openai")
    assert binding(bare, "alice", ["a"]) is bare.bound
