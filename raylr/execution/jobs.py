"""Studies as jobs of a Ray cluster: submitted, followed, gone on with by submitting again.

The job is `raylr search` on the head node. It gets the spec alone as its working directory, so that no other file of
the sender can change what the job is; everything that the spec names (texts, a corpus, a trainer's folder) and the
study's folder must be there on the cluster, at the same paths. How jobs behave was run with Ray 2.60.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from raylr.errors import InputError, TrainingError
from raylr.remote.copies import local_path
from raylr.remote.storage import address_of
from raylr.spec import StudySpec
from raylr.spec.files import dump_spec
from raylr.store.places import refuse_copy

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SPEC = "spec.yaml"
FOLDER = "raylr_folder"
"""Key of a job's metadata: the study's folder."""
STOP_SECONDS = 60
"""Seconds between the SIGTERM and the SIGKILL of `ray job stop` (Ray's own default is 3): the runs that are measured
when it comes are written in far less; loading a law's libraries on a busy head node takes longer than 3 s."""

AGENT_SECONDS = 60.0
"""Seconds to wait for an agent of the cluster that can start a job: Ray 2.60 refuses jobs in its first seconds."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A study's job."""

    id: str
    """Ray's submission id, as `ray job` takes it."""
    new: bool
    """Whether it was submitted now; False: it was there already, pending or running."""


def shared_folder(out: Path | str) -> str:
    """Return the folder of a study that is to run as a job: an absolute path, or an address.

    Raises:
        InputError: If it is relative, in Ray's copy of a job's files, or an address that raylr does not write to.
    """
    if (address := address_of(out)) is not None:
        return address
    folder = local_path(out)
    if not folder.is_absolute():
        raise InputError(
            f"{out} is a relative path, which on the cluster lies in Ray's copy of the job's files, and Ray "
            "deletes that; give the study's folder as an absolute path on storage that all nodes share"
        )
    refuse_copy(folder)
    return str(folder)


class Jobs:
    """The jobs of one cluster.

    Args:
        address: Of the cluster's job server, such as http://head:8265; None: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or
            the cluster on this machine, as `ray job` has it.

    Raises:
        InputError: If there is no job server at the address, or it refuses the request.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address or "the default address"
        self._client: JobSubmissionClient = self._requested(self._connect, address)

    @staticmethod
    def _connect(address: str | None) -> JobSubmissionClient:
        from ray.job_submission import JobSubmissionClient

        for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
            logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)  # they tell of packages under hashed names
        return JobSubmissionClient(address)

    def submit(
        self,
        spec: StudySpec,
        out: Path | str,
        *,
        packages: Sequence[str] = (),
        pip: Sequence[str] = (),
        env: Sequence[tuple[str, str]] = (),
    ) -> Job:
        """Submit a study's job, or return the one that is already pending or running for the same folder.

        Args:
            spec: The study's spec.
            out: The study's folder: an absolute path on storage that all nodes share, or an address.
            packages: Wheels or package folders on this machine that the job's processes import (Ray's `py_modules`).
            pip: Requirements that Ray installs for the job on every node.
            env: Names and values of further environment variables of the job.

        Raises:
            InputError: For a folder that is relative, a package that is not there, or if the
                cluster refuses the job.
        """
        folder = shared_folder(out)
        for package in packages:
            if not Path(package).exists():
                raise InputError(f"{package}: there is no such wheel or package")
        for job in self._requested(self._client.list_jobs):
            going = job.metadata and job.metadata.get(FOLDER) == folder and not job.status.is_terminal()
            if going and job.submission_id:
                return Job(id=job.submission_id, new=False)
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1", **dict(env)}
        runtime: dict[str, Any] = {"env_vars": variables}
        if packages:
            runtime["py_modules"] = [str(Path(package).resolve()) for package in packages]
        if pip:
            runtime["pip"] = list(pip)
        with tempfile.TemporaryDirectory() as files:
            Path(files, SPEC).write_text(dump_spec(spec), encoding="utf-8")
            runtime["working_dir"] = files
            name = f"raylr-{PurePosixPath(folder.partition('?')[0]).name}-{time.strftime('%Y%m%d-%H%M%S')}"
            made = self._requested(
                self._submitted,
                entrypoint=f"python -m raylr search {SPEC} --out {shlex.quote(folder)}",
                submission_id=name,
                runtime_env=runtime,
                metadata={FOLDER: folder},
            )
        return Job(id=made, new=True)

    def _submitted(self, **job: Any) -> str:
        """Submit a job; a cluster that has just started has no agent that takes it yet."""
        begun = time.monotonic()
        while True:
            try:
                return str(self._client.submit_job(**job))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() - begun > AGENT_SECONDS:
                    raise
            time.sleep(1.0)

    def follow(self, job: Job, show: Callable[[str], None]) -> None:
        """Show what the job prints, from its beginning, until it ends.

        Args:
            job: The job.
            show: Called with pieces of text, whole lines or not.

        Raises:
            TrainingError: If the job failed or was stopped; the message says how it goes on.
        """

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job.id):
                show(text)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60 calls aiohttp 3.14 as it was before
            self._requested(lambda: asyncio.run(tail()))
        info = self._requested(self._client.get_job_info, job.id)
        again = "Everything measured is kept; submit it again to go on"
        if info.status.name == "STOPPED":
            raise TrainingError(f"the job {job.id} was stopped. {again}")
        if info.status.name == "FAILED":
            why = (info.message or "").strip().splitlines()
            raise TrainingError(f"the job {job.id} failed: {why[0] if why else 'Ray gives no reason'}. {again}")

    def stop(self, job: Job) -> None:
        """Ask the job to end: what it has measured is kept."""
        self._requested(self._client.stop_job, job.id)

    def _requested(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the job server answers; what it refuses, as one sentence."""
        try:
            return call(*args, **kwargs)
        except (InputError, TrainingError):
            raise
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            hint = ""
            if "401" in reason or "403" in reason:
                hint = "; a cluster with token authentication needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too"
            raise InputError(f"Ray's job server at {self._address}: {reason}{hint}") from error
