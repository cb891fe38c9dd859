"""A small model trained while a learner watches, in a process of its own.

plan.py      what may be set, what it makes (a ModelConfig and a Recipe), and what it will take   (no torch)
texts.py     the texts to learn from: the plays, one scene, or a text that the learner brings
learning.py  the run itself: training.loop with a clock, and what it tells on the way
child.py     that run as a program: a request comes in, lines of JSON go out
run.py       the other side: start such a process, hear from it, stop it, and never leave one behind
turns.py     whose turn it is, when several want to train at once

The two sides exchange lines of JSON over the process's own pipes: numbers and short strings, nothing that would have to
be unpickled, and no need to import the program that started it (which multiprocessing's "spawn" would do, Gradio and
all). A pipe also closes by itself when either side ends, however it ends, so nobody is left waiting.
"""
