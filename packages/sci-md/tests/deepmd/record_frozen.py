"""Makes frozen.tar.gz: a small se_e2_a model of DeePMD-kit 3.2.0, its checkpoint and its frozen programs.

    python packages/sci-md/tests/deepmd/record_frozen.py

Freezing takes a quarter of a minute, too long for a test. The default ``type_one_side: false`` is frozen mended.
"""

import tarfile
import tempfile
from pathlib import Path

import paddle
from deepmd.pd.model.model import get_model

from oarlock.sci_md.deepmd import run

PARAMS = {
    "type_map": ["Cu", "O"],
    "descriptor": {
        "type": "se_e2_a",
        "rcut": 4.0,
        "rcut_smth": 1.0,
        "sel": [40, 40],
        "neuron": [4, 8],
        "axis_neuron": 4,
        "seed": 1,
    },
    "fitting_net": {"neuron": [8, 8], "seed": 1},
}


def main() -> None:
    archive = Path(__file__).with_name("frozen.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.pd"
        state = get_model(PARAMS).state_dict()
        whole = {f"model.Default.{name}": value for name, value in state.items()}
        whole["_extra_state"] = {"model_params": PARAMS, "train_infos": {"step": 0}}
        paddle.save({"model": whole}, str(checkpoint))
        run(["freeze", "-c", str(checkpoint), "-o", str(Path(folder) / "frozen")])
        with tarfile.open(archive, "w:gz") as file:
            for path in sorted(Path(folder).iterdir()):
                file.add(path, path.name)


if __name__ == "__main__":
    main()
