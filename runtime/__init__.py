"""How does a run survive, scale, and know its cost? Not needed to follow the method.

    cli.py        options from a dataclass, errors in one line, text that is safe to print
    files.py      files that no kill can leave half written, locks, and digests
    processes.py  the device, and several processes on several GPUs, by torchrun and FSDP2
    batching.py   how the rows of a step are cut into micro-batches
    runs.py       what a run leaves on disk: log, sample grids, checkpoint, and the state from which it goes on
    curves.py     a picture of the log
    report.py     figures with their errors, tables, and the contact sheet
    stages.py     which stages of a character eval.py compares
    judging.py    a language model as a judge: what it is asked, what it answered, and whether it is one
    picture_measures.py, word_measures.py    what can be measured without a judge
    terminal.py   what a terminal can do for a talk: pictures in place, pasted lines
    recall.py     what is known: which reply belongs to a line that was never told, and how it helps to answer
    nearness.py   which lines mean the same, learned from their wordings
    talks.py      what a talk stands on: checkpoints that can answer, and the folder that keeps what was said
    endpoint.py   ask a language model, on a server or here, for one JSON object: for judges, and to write characters
    plan.py       parameters, memory, FLOPs and GPU-hours of a run before anything is loaded
    counting.py   how plan.py counts: a model without numbers
    rehearse.py   every kind of step once at the paper's size, with random weights, beside its plan
    bench.py      speed of a training step, a denoising step and a reply token

Every script imports this package first, before torch: what stands below must be done before torch is loaded.
"""
import importlib.util
import os
import sys

# Older ones were never tried.
if sys.version_info < (3, 11):
    sys.stderr.write("error: Python %d.%d: too old; install Python 3.11 or newer\n" % sys.version_info[:2])
    sys.exit(2)

for package in "torch", "transformers", "safetensors", "tqdm", "numpy", "PIL":
    if importlib.util.find_spec(package) is None:
        sys.stderr.write("error: the package %s is not installed; run: pip install -r requirements.txt\n" % package)
        sys.exit(2)

# Loading torch takes seconds. Ctrl-C in them ends without a traceback; later run_script sees to it.
sys.excepthook = lambda kind, *more: None if kind is KeyboardInterrupt else sys.__excepthook__(kind, *more)

# A training step on a CPU consists of thousands of small parallel loops, and after each the threads wait for the last
# of them. In torch for Linux (GNU's OpenMP library) they wait by spinning. Then one other busy program is enough to
# ruin a run: it takes a core from a thread that works, while the spinning threads keep theirs. Seen with sft.py, two
# threads on two cores, one of them busy: more than 60 s for a step instead of 0.45 s. So a thread spins only a moment,
# and then sleeps until it is woken: 1.24 s beside the busy core, 0.49 s alone. Beside seven busy programs, forward and
# backward pass of 14 replies took 1.5 to 2.3 s so, and by default were not done once in two minutes. Intel's library
# (torch for Windows) yields its core while it waits: there, KMP_BLOCKTIME from 0 to 200 changed nothing. LLVM's (macOS)
# was not measured.
# The library reads the variable once, when torch loads it. Whoever has set it already has the last word.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")            # rounds of spinning; the default is 300,000

# oneDNN, which multiplies for torch on a CPU, compiles a kernel for every shape that it meets, and keeps the last
# 1,024. Texts have many lengths: after thirty steps of sft.py these kernels held 400 MB, and grew. With the last 64
# kept it was 1.41 GB instead of 1.79, and the steps took 4 % longer.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
