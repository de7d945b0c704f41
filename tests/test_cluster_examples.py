"""The examples for clusters: their syntax, and that their commands are commands of raylr. They are not run."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"


def test_the_slurm_script_is_a_script():
    done = subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_rayjob_mounts_what_it_names():
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    folder = re.search(r"--out (\S+)", job["spec"]["entrypoint"]).group(1)
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert any(folder.startswith(mount["mountPath"]) for mount in container["volumeMounts"])
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_example_searches_into_a_shared_folder(path):
    found = re.findall(r"raylr search (\S+) --out (\S+)", path.read_text())
    assert len(found) == 1
    values = dict(re.findall(r"^(\w+)=(\S+)", path.read_text(), re.MULTILINE))
    spec, folder = (values.get(word.strip('"$'), word) for word in found[0])
    assert spec.startswith("/shared/")
    assert folder.startswith("/shared/")
