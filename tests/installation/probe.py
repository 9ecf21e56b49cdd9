"""A program that looks our classes up as nnU-Net does, in its own process and in a spawned one. Prints one JSON object.

It runs as a script in the tests' environments, and as the command `nnUNetv2_probe` through `python -m nnunet_fedmepd`.
"""

from __future__ import annotations

import json
import multiprocessing


def find_trainer(name: str = "FedMEPDTrainer") -> type | None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError:  # so nnU-Net says that there is none
        return None


def find_planner() -> type | None:
    import nnunetv2
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    folder = f"{nnunetv2.__path__[0]}/experiment_planning"
    return api.recursive_find_python_class(folder, "FedMEPDPlanner", "nnunetv2.experiment_planning")


def main() -> None:
    import nnunetv2

    trainer = find_trainer()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        trainer_in_worker = pool.apply(find_trainer)
    found = {
        "trainer": name_of(trainer),
        "planner": name_of(find_planner()),
        "trainer in worker": name_of(trainer_in_worker),
        "same class": trainer is trainer_in_worker,
        "stock trainer": name_of(find_trainer("nnUNetTrainer")),
        "nnunetv2": nnunetv2.__path__[0],
    }
    print(json.dumps(found))


def name_of(found: type | None) -> str | None:
    return None if found is None else f"{found.__module__}.{found.__name__}"


if __name__ == "__main__":
    main()
