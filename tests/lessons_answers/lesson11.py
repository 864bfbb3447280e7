"""Answers to lesson 11: what must be kept so that a run goes on with the same bits."""
import copy

import numpy as np
import tinyalex as ta

from . import right, wrong


@right("11.1")
def by_state_dicts(net, opt):
    return {"net": net.state_dict(), "opt": opt.state_dict(), "random": ta.random.get_state()}


@right("11.1")
def by_hand(net, opt):
    weights = {name: p.numpy().copy() if not p.requires_grad else p.data.copy()
               for name, p in net.named_parameters()}
    momentum = {str(i): v.copy() for i, v in enumerate(opt.velocity) if v is not None}
    return dict(net=weights, opt=dict(lr=opt.lr, bias_lr=opt.bias_lr, momentum=momentum),
                random=dict(ta.random.get_state()), note="more does no harm")


@right("11.1")
def deep_copies(net, opt):
    return copy.deepcopy({"net": {n: p.data for n, p in net.named_parameters()},
                          "opt": opt.state_dict(), "random": ta.random.get_state()})


@wrong("11.1", 'has no "opt"')
def weights_only(net, opt):
    return {"net": net.state_dict()}


@wrong("11.1", 'has no "random"')
def no_randomness(net, opt):
    return {"net": net.state_dict(), "opt": opt.state_dict()}


@wrong("11.1", "The net 0.weight was right, but")
def own_memory(net, opt):
    return {**by_state_dicts(net, opt), "net": {n: p.data for n, p in net.named_parameters()}}


@wrong("11.1", "The velocity 0 was right, but")
def own_velocity(net, opt):
    momentum = {str(i): v for i, v in enumerate(opt.velocity)}
    return {**by_state_dicts(net, opt), "opt": {**opt.state_dict(), "momentum": momentum}}


@wrong("11.1", "has no 'momentum'")
def rate_only(net, opt):
    return {**by_state_dicts(net, opt), "opt": {"lr": opt.lr, "bias_lr": None}}


@wrong("11.1", "The velocity of 4 of 4 parameters is missing")
def empty_velocity(net, opt):
    return {**by_state_dicts(net, opt), "opt": {**opt.state_dict(), "momentum": {}}}


@wrong("11.1", "The velocity 0 is not what it is at this moment")
def gradients_for_velocity(net, opt):
    momentum = {str(i): p.grad.copy() for i, p in enumerate(opt.params)}
    return {**by_state_dicts(net, opt), "opt": {**opt.state_dict(), "momentum": momentum}}


@wrong("11.1", "The learning rate is 0.1, and it is 0.03")
def first_rate(net, opt):
    return {**by_state_dicts(net, opt), "opt": {**opt.state_dict(), "lr": 0.1}}


@wrong("11.1", "The step of the randomness is 0")
def seed_only(net, opt):
    return {**by_state_dicts(net, opt), "random": {"seed": 0, "step": 0}}


@wrong("11.1", "The net 0.weight is rounded")
def half_precision(net, opt):
    weights = {n: a.astype(np.float16) for n, a in net.state_dict().items()}
    return {**by_state_dicts(net, opt), "net": weights}


@wrong("11.1", "has no '0.bias'")
def no_biases(net, opt):
    weights = {n: a for n, a in net.state_dict().items() if "weight" in n}
    return {**by_state_dicts(net, opt), "net": weights}


@wrong("11.1", "returned a tuple; expected a dict")
def a_tuple(net, opt):
    return tuple(by_state_dicts(net, opt).values())


# ---------------------------------------------------------------------------- resume

@right("11.2")
def load(net, opt, state):
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])
    ta.random.set_state(**state["random"])


@right("11.2")
def fill(net, opt, state):
    for name, p in net.named_parameters():
        p.data[...] = state["net"][name]
    opt.lr, opt.bias_lr = state["opt"]["lr"], state["opt"]["bias_lr"]
    opt.velocity = [state["opt"]["momentum"][str(i)].copy() for i in range(len(opt.params))]
    ta.random.set_state(state["random"]["seed"], state["random"]["step"])


@right("11.2")
def in_another_order(net, opt, state):
    state = copy.deepcopy(state)
    ta.random.set_state(step=state["random"]["step"], seed=state["random"]["seed"])
    opt.load_state_dict(state["opt"])
    return net.load_state_dict(state["net"])


@wrong("11.2", "After your resume the net is as it was")
def new_names(net, opt, state):
    net, opt = state["net"], state["opt"]
    ta.random.set_state(**state["random"])


@wrong("11.2", "The velocity 0 is not what it is")
def weights_alone(net, opt, state):
    net.load_state_dict(state["net"])
    opt.lr = state["opt"]["lr"]
    ta.random.set_state(**state["random"])


@wrong("11.2", "The velocity of 4 of 4 parameters is missing")
def velocity_forgotten(net, opt, state):
    load(net, opt, state)
    opt.velocity = [None] * len(opt.velocity)


@wrong("11.2", "The learning rate is 0.1, and it is 0.03")
def old_rate(net, opt, state):
    kept = opt.lr
    load(net, opt, state)
    opt.lr = kept


@wrong("11.2", "The seed of the randomness is 1")
def no_random(net, opt, state):
    net.load_state_dict(state["net"])
    opt.load_state_dict(state["opt"])


@wrong("11.2", "The step of the randomness is 0")
def seed_again(net, opt, state):
    load(net, opt, state)
    ta.manual_seed(state["random"]["seed"])


@wrong("11.2", "The step of the randomness is 9")
def one_step_on(net, opt, state):
    load(net, opt, state)
    ta.random.next_step()


@wrong("11.2", "writes into your state")
def by_reference(net, opt, state):
    load(net, opt, state)
    for name, p in net.named_parameters():
        p.data = state["net"][name]


@wrong("11.2", "The net 0.bias is not what it is")
def no_biases_back(net, opt, state):
    biases = {n: p.data.copy() for n, p in net.named_parameters() if "bias" in n}
    load(net, opt, state)
    for name, p in net.named_parameters():
        if name in biases:
            p.data[...] = biases[name]


@wrong("11.2", "The net 0.weight is rounded")
def rounded(net, opt, state):
    load(net, opt, state)
    for p in net.parameters():
        p.data[...] = p.data.astype(np.float16)


@wrong("11.2", "stopped in its line")
def resume(net, opt, state):
    net.load_state_dict(state)
