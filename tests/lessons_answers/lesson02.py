"""Answers to lesson 02: the order in which backward walks a graph."""
import collections

from . import right, wrong


@right("2.1")
def own_stack(root):
    done, seen, stack = [], set(), [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            done.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            for parent in node.parents:
                stack.append((parent, False))
    done.reverse()
    return done


@right("2.1")
def count_the_users(root):
    """Kahn's way: a node is ready when its last user is done."""
    users, todo, seen = collections.Counter(), [root], {root}
    while todo:
        for parent in todo.pop().parents:
            users[parent] += 1
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    order, ready = [], [root]
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in node.parents:
            users[parent] -= 1
            if users[parent] == 0:
                ready.append(parent)
    return order


@right("2.1")
def generators(root):
    """The recursive walk, its call stack made a list of iterators."""
    done, seen, open_ = [], {root}, [(root, iter(root.parents))]
    while open_:
        node, parents = open_[-1]
        for parent in parents:
            if parent not in seen:
                seen.add(parent)
                open_.append((parent, iter(parent.parents)))
                break
        else:
            done.append(node)
            open_.pop()
    return tuple(reversed(done))


@wrong("2.1", "This is breadth first")
def breadth_first(root):
    order, queue = [], collections.deque([root])
    while queue:
        node = queue.popleft()
        if node not in order:
            order.append(node)
            queue.extend(node.parents)
    return order


@wrong("2.1", "not when it is first met")
def preorder(root):
    order, stack = [], [root]
    while stack:
        node = stack.pop()
        if node not in order:
            order.append(node)
            stack.extend(reversed(node.parents))
    return order


@wrong("2.1", "The order is turned around")
def leaves_first(root):
    return own_stack(root)[::-1]


@wrong("2.1", "stands twice")
def no_memory(root):
    order, stack = [], [root]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(node.parents)
    return order


@wrong("2.1", "You walk every path")
def every_path(root):
    """Right for small graphs: duplicates are thrown out at the end."""
    order, stack = [], [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            if node not in order:
                order.append(node)
        else:
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return order[::-1]


@wrong("2.1", "A function that calls itself stops")
def recursive(root):
    done, seen = [], set()

    def walk(node):
        if node not in seen:
            seen.add(node)
            for parent in node.parents:
                walk(parent)
            done.append(node)

    walk(root)
    return done[::-1]


@wrong("2.1", "The root is missing")
def below_the_root(root):
    return own_stack(root)[1:]


@wrong("2.1", "The leaf a is missing")
def no_leaves(root):
    return [node for node in own_stack(root) if node.parents or node is root]


@wrong("2.1", "returned a set")
def no_order(root):
    return set(own_stack(root))


@wrong("2.1", "The node b is missing")
def first_parent_only(root):
    order, node = [root], root
    while node.parents:
        node = node.parents[0]
        if not node.parents:
            order.append(node)
    return order


@wrong("2.1", "is no node of this graph")
def names(root):
    return [repr(node) for node in own_stack(root)]
