"""One process that has imported a driver's program and forks for each request: many evaluations, one start.

Started as `python -I driver_server.py DRIVER MODULE,MODULE…`. A line of its standard input is a request: JSON with
`work` (folder), `log`, `events` (a FIFO), `env`, and `request` (the file for the driver) or `code` (Python that may
call `emit`). Its standard output has the exit status of each. A fork shares nothing with the next one.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path


def load(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def carry_out(driver, asked: dict, keep_open: int) -> int:
    events = os.open(asked["events"], os.O_WRONLY)
    os.setsid()
    os.chdir(asked["work"])
    os.environ.update(asked["env"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target, descriptor in ((0, keep_open), (1, log), (2, log)):
        os.dup2(descriptor, target)
    if "request" in asked:
        return driver.main(asked["request"], str(events))
    with os.fdopen(events, "w") as stream:
        exec(asked["code"], {"driver": driver, "emit": lambda **event: stream.write(json.dumps(event) + "\n")})
    return 0


def main(path: str, modules: str) -> None:
    driver = load(path)
    for name in filter(None, modules.split(",")):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a module prints is no answer
    print("ready", file=answers)
    for line in sys.stdin:
        held, ours = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            status = 1
            try:
                status = carry_out(driver, json.loads(line), held)
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(held)
        _, status = os.waitpid(child, 0)
        os.close(ours)
        print(os.waitstatus_to_exitcode(status), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
