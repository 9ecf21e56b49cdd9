"""Training settings come from the plans file and, for one run, from the environment."""

import pytest

from nnunet_fedmepd.config.training import TrainingSettings, overriding_variables
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
        ({}, {"num_epochs": 0}, "num_epochs is 0; expected at least 1"),
        ({}, {"anchor_momentum": -1.0}, "anchor_momentum is -1.0; expected between 0 and 1"),
        ({}, {"modality_dropout": 1.5}, "modality_dropout is 1.5; expected between 0 and 1"),
        ({}, {"optimizer": "lion"}, "optimizer is 'lion'; expected one of sgd, adam, adamw"),
        ({}, {"epochs": 5}, "epochs: unknown key; did you mean 'num_epochs'?"),
        ({}, {"something": 5}, r"(?s)something: unknown key\n.*the settings are num_epochs, num_iter.*, seed\."),
        ({}, {"initial_lr": "0.1"}, "initial_lr: expected a finite number, found '0.1'"),
        ({}, {"initial_lr": float("nan")}, "initial_lr: expected a finite number, found nan"),
        ({}, {"num_epochs": None}, "num_epochs: expected an integer, found None"),
        ({"FEDMEPD_NUM_EPOCHS": "0"}, {}, "num_epochs is 0; expected at least 1.*FEDMEPD_NUM_EPOCHS"),
        ({"FEDMEPD_NUM_EPOCHS": "many"}, {}, "FEDMEPD_NUM_EPOCHS is 'many'; expected an integer"),
        ({"FEDMEPD_FINAL_VALIDATION": "perhaps"}, {}, "FEDMEPD_FINAL_VALIDATION is 'perhaps'; expected true or false"),
        ({"FEDMEPD_INITIAL_LR": "inf"}, {}, "FEDMEPD_INITIAL_LR is 'inf'; expected a finite number"),
        ({"FEDMEPD_INITIAL_LR": "nan"}, {}, "FEDMEPD_INITIAL_LR is 'nan'; expected a finite number"),
        ({"FEDMEPD_EPOCHS": "5"}, {}, "FEDMEPD_EPOCHS sets nothing; did you mean FEDMEPD_NUM_EPOCHS?"),
        ({"FEDMEPD_OPTIMISER": "sgd"}, {}, "FEDMEPD_OPTIMISER sets nothing; did you mean FEDMEPD_OPTIMIZER?"),
        ({"FEDMEPD_LR": "1"}, {}, "FEDMEPD_LR sets nothing; did you mean FEDMEPD_INITIAL_LR?"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(environment, written, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(environment, **written)


def test_every_mistake_in_the_plans_is_listed_with_the_plans_and_the_dataset():
    plans = {"plans_name": "FedMEPDPlans", "dataset_name": "Dataset501_a"}
    with pytest.raises(ConfigurationError) as refused:
        TrainingSettings.from_plans({**plans, "fedmepd": {"training": {"epoch": 5, "seed": "1"}}}, {})
    assert str(refused.value).startswith(
        "fedmepd.training in the plans 'FedMEPDPlans' of Dataset501_a cannot be used:\n"
        "  epoch: unknown key; did you mean 'num_epochs'?\n"
        "  seed: expected an integer, found '1'\n"
        "Correct it in the plans file"
    )


def test_a_federation_is_told_of_a_misspelt_variable_and_of_those_that_would_override():
    assert overriding_variables({"FEDMEPD_SEED": "1", "HOME": "/"}) == ["FEDMEPD_SEED"]
    with pytest.raises(ConfigurationError, match="did you mean FEDMEPD_SEED"):
        overriding_variables({"FEDMEPD_SEEDS": "1"})


@pytest.mark.parametrize(
    "variable", ["NO_HOOK", "KIT", "FAULT_REPEATS", "HALTS_WHEN", "HALTS_IN_ROUND", "OVERHEAD", "FOLDER_OF_MY_OWN"]
)
def test_other_variables_with_our_prefix_are_left_alone(variable):
    assert settings({f"FEDMEPD_{variable}": "1"}) == TrainingSettings()
