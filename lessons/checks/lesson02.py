"""Lesson 02: the order in which backward walks a graph."""
import numpy as np

from .judging import Exercise, Wrong


class Node:
    """A result and what it was computed from; counts how often it is asked for its parents."""

    def __init__(self, name, *parents, budget=None):
        self.name, self._parents = name, parents
        self.budget = budget if budget is not None else [10**9]

    @property
    def parents(self):
        """The nodes that this one was computed from, as a tuple; a leaf has none."""
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise Wrong("You walk every path through the graph, and paths double at each step: "
                        "forty doublings have a million million. Visit each node once: keep a "
                        "set of those that you have seen.")
        return self._parents

    def __repr__(self):
        return self.name


def library(root):
    """Return the nodes under `root`, users first: a depth-first walk with a stack of its own."""
    done, seen, stack = [], set(), [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            done.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return done[::-1]


def graphs():
    """Yield (what it is, root): small ones that the student can draw, then large ones."""
    a = Node("a")
    yield "a alone", a
    yield "b = -a; c = -b", Node("c", Node("b", a))
    yield "b = a + a", Node("b", a, a)
    b = Node("b", a, a)
    yield "b = a + a; c = b + b", Node("c", b, b)
    yield "m = -a; n = -a; c = m * n", Node("c", Node("m", a), Node("n", a))
    yield "m = -a; c = a * m", Node("c", a, Node("m", a))
    yield "m = -a; c = m * a", Node("c", Node("m", a), a)
    rng = np.random.default_rng(2)
    for count in (6, 12, 40):
        for _ in range(10):
            nodes = [Node("n0")]
            for i in range(1, count):
                parents = rng.choice(i, size=min(i, int(rng.integers(1, 4))))
                nodes.append(Node(f"n{i}", *(nodes[j] for j in parents)))
            yield f"a graph of up to {count} nodes, drawn at random", nodes[-1]
    budget = [2000]
    top = Node("n0", budget=budget)
    for i in range(1, 41):
        top = Node(f"n{i}", top, top, budget=budget)
    yield "n1 = n0 + n0; n2 = n1 + n1; ... n40 = n39 + n39", top
    for i in range(5000):
        top = Node(f"n{i}", *([top] if i else []))
    yield "5,000 nodes in a row", top


def check(ask):
    """Look at the order of each graph."""
    count = 0
    for what, root in graphs():
        try:
            order = ask(root)
        except Wrong as wrong:
            if "RecursionError" in wrong.text:
                raise Wrong("A function that calls itself stops at about 1,000 levels, and here "
                            f"are {what}. Keep a list of what is still to be done instead: a "
                            "stack of your own.") from None
            raise Wrong(f"{wrong.text}\nThe graph: {what}.") from None
        judge_order(what, root, order)
        count += 1
    return f"{count} graphs in the right order, one of them 5,000 nodes deep."


def judge_order(what, root, order):
    """Raise Wrong unless `order` holds each node once, and before all that it came from."""
    if not isinstance(order, (list, tuple)):
        raise Wrong(f"backward_order returned a {type(order).__name__}; expected a list of nodes, "
                    "for the order is the answer.")
    names = ", ".join(map(str, order[:12])) + (", ..." if len(order) > 12 else "")
    head = f"The graph: {what}. Your order: {names or 'empty'}.\n"
    right = set(library(root))
    strangers = [n for n in order if n not in right]
    if strangers:
        raise Wrong(head + f"{strangers[0]!r} is no node of this graph.")
    twice = next((n for i, n in enumerate(order[:500]) if n in order[:i]), None)
    if twice is not None:
        raise Wrong(head + f"{twice} stands twice, so it would send its gradient down twice. "
                    "It waits until all have sent to it, and then sends once.")
    missing = right - set(order)
    if missing == {root}:
        raise Wrong(head + "The root is missing; it is where the gradient starts: dL/dL = 1.")
    if missing:
        kind = "leaf" if not any(n._parents for n in missing) else "node"
        raise Wrong(head + f"The {kind} {min(missing, key=str)} is missing"
                    + ("; the leaves are what we want gradients of." if kind == "leaf" else "."))
    place = {node: i for i, node in enumerate(order)}
    for node in order:
        early = [p for p in node._parents if place[p] < place[node]]
        if early:
            raise Wrong(head + f"{early[0]} comes before {node}, but {node} was computed from "
                        f"{early[0]} and has not sent its gradient yet.\n" + likely(root, order))


def likely(root, order):
    """Name the walk that gives this order, if it is a known one."""
    order = list(order)
    if order == library(root)[::-1] or order[-1] is root:
        return ("The order is turned around, for forward: the root, where the gradient starts, "
                "stands last.")
    level, seen = [root], [root]
    for node in level:
        for parent in node._parents:
            if parent not in seen:
                seen.append(parent)
                level.append(parent)
    if order == level:
        return ("This is breadth first, by the shortest way from the root; it is the longest way "
                "that a gradient must wait for.")
    return "A node's turn comes when all its users have had theirs, and not when it is first met."


EXERCISES = (Exercise(
    number="2.1",
    title="the order of backward",
    call="backward_order(root) -> list of nodes",
    library=library,
    check=check,
    hints=(
        "A node may pass on its gradient only when all its users have sent theirs. So each node "
        "stands before its parents. Turn that around: in which order do nodes become known when "
        "the result is computed?",
        "Walk depth first and write a node down when all its parents are written down; reverse "
        "the list. A set of seen nodes keeps you from walking twice. For 5,000 nodes in a row, "
        "keep your own stack, as a function that calls itself gets too deep.",
        "Begin with done, seen, stack = [], set(), [(root, False)]. While there is a stack:\n"
        "    node, finished = stack.pop()\n"
        "    if finished:           done.append(node)\n"
        "    elif not in seen yet:  add it to seen, push (node, True),\n"
        "                           and then (parent, False) for each of its parents\n"
        "Return done[::-1].",
    ),
    may_call=("checks.lesson02.Node",),
),)
