"""A driver of a study on a made-up loss, without Ray, whose lease lives for seconds.

python slow_driver.py PLACE TEXTS SECONDS    SECONDS for each loss
"""

import sys
import time

from faulty_study import seen
from made_study import spec_of, study_of
from serial_executor import SerialExecutor

from raylr.errors import RaylrError
from raylr.remote import lease


def main(place, texts, seconds):
    lease.BEAT_SECONDS, lease.LEASE_SECONDS = 0.5, 6.0
    try:
        study_of(spec_of(texts), place, SerialExecutor(lambda job, tokens: time.sleep(float(seconds)))).run()
    except RaylrError as error:
        print(seen(error), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
