"""Training settings come from the plans file and, for one run, from the environment."""

import pytest

from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.errors import ConfigurationError


def settings(environment=None, **written):
    return TrainingSettings.from_plans({"fedmepd": {"training": written}}, environment or {})


def test_the_environment_overrides_the_plans_which_override_the_defaults():
    read = settings({"FEDMEPD_NUM_EPOCHS": "7", "FEDMEPD_FINAL_VALIDATION": "0"}, num_epochs=5, save_every=3)
    assert (read.num_epochs, read.save_every, read.final_validation) == (7, 3, False)
    assert read.num_iterations_per_epoch == 250


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 1e-2), ("adam", 2e-4), ("adamw", 1e-3)])
def test_every_optimizer_has_its_own_default_learning_rate(optimizer, rate):
    assert settings(optimizer=optimizer).learning_rate == rate
    assert settings(optimizer=optimizer, initial_lr=0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    ("environment", "written", "message"),
    [
        ({}, {"num_epochs": 0}, "num_epochs is 0; expected at least 1.*FEDMEPD_NUM_EPOCHS"),
        ({}, {"anchor_momentum": -1.0}, "anchor_momentum is -1.0; expected between 0 and 1"),
        ({}, {"modality_dropout": 1.5}, "modality_dropout is 1.5; expected between 0 and 1"),
        ({}, {"optimizer": "lion"}, "optimizer is 'lion'; expected one of sgd, adam, adamw"),
        ({}, {"epochs": 5}, r"Unknown training settings \['epochs'\].*num_epochs"),
        ({"FEDMEPD_NUM_EPOCHS": "many"}, {}, "FEDMEPD_NUM_EPOCHS='many' cannot be read as int"),
        ({"FEDMEPD_FINAL_VALIDATION": "perhaps"}, {}, "FEDMEPD_FINAL_VALIDATION='perhaps' cannot be read as bool"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(environment, written, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(environment, **written)
