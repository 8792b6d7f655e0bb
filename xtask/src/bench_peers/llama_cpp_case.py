"""Times llama.cpp on one GGUF file and prints a JSON object: version, system line, seconds of each case.

    python llama_cpp_case.py MODEL THREADS PROMPT GENERATE DEPTHS SEQUENCES

DEPTHS and SEQUENCES are lists such as 0,2048 and 1,8. Every depth is decoded alone, every number of sequences at depth 0.
"""

import importlib.metadata
import json
import sys
import time

import llama_cpp as llama

VOCAB = 32000
STEP_TOKENS = 512
# Kept here: the library calls it as long as the process lives.
SILENT = llama.llama_log_callback(lambda *_: None)


def fail(what):
    raise SystemExit(what)


class Session:
    def __init__(self, path, threads, context, sequences):
        llama.llama_log_set(SILENT, None)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = STEP_TOKENS
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        self.context = llama.llama_init_from_model(self.model, parameters) or fail("no context")
        self.batch = llama.llama_batch_init(STEP_TOKENS, 0, 1)

    def clear(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def step(self, rows):
        """One step of (token, position, sequence) rows; the last row of each sequence gives logits."""
        last = {sequence: index for index, (_, _, sequence) in enumerate(rows)}
        for index, (token, position, sequence) in enumerate(rows):
            self.batch.token[index] = token
            self.batch.pos[index] = position
            self.batch.n_seq_id[index] = 1
            self.batch.seq_id[index][0] = sequence
            self.batch.logits[index] = last[sequence] == index
        self.batch.n_tokens = len(rows)
        if llama.llama_decode(self.context, self.batch) != 0:
            fail("llama_decode failed")
        llama.llama_synchronize(self.context)

    def prefill(self, tokens, sequence):
        for first in range(0, tokens, STEP_TOKENS):
            self.step([(p * 7919 % VOCAB, p, sequence) for p in range(first, min(tokens, first + STEP_TOKENS))])


def main():
    path, threads, prompt, generate = sys.argv[1], *map(int, sys.argv[2:5])
    depths, sequences = ([int(part) for part in text.split(",")] for text in sys.argv[5:7])
    session = Session(path, threads, (max(depths) + prompt + generate) * max(sequences), max(sequences))
    session.prefill(prompt, 0)
    cases = []
    session.clear()
    begin = time.perf_counter()
    session.prefill(prompt, 0)
    cases.append({"case": "prefill", "tokens": prompt, "seconds": time.perf_counter() - begin})
    decodes = [(depth, 1) for depth in depths] + [(0, count) for count in sequences if count > 1]
    for depth, count in decodes:
        session.clear()
        for sequence in range(count):
            session.prefill(depth, sequence)
        begin = time.perf_counter()
        for index in range(generate):
            position = depth + index
            session.step([((position + 31 * s) * 7919 % VOCAB, position, s) for s in range(count)])
        seconds = time.perf_counter() - begin
        cases.append({"case": "decode", "depth": depth, "sequences": count, "tokens": generate * count,
                      "seconds": seconds})
    print(json.dumps({
        "version": importlib.metadata.version("llama-cpp-python"),
        "system": llama.llama_print_system_info().decode(), "cases": cases,
    }))


main()
