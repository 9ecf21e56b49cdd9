"""A federation file is found by its path or a recipe's name; the recipes are those of the publication and the demo."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dataset_conversion.assignment import SiteAssignment, in_site_order
from dataset_conversion.conversion import FIRST_ID
from dataset_conversion.paper_split import PAPER_MODALITIES
from nnunet_fedmepd.config.federation import Federation
from nnunet_fedmepd.config.loading import load_federation, recipe, recipes
from nnunet_fedmepd.config.training import TrainingSettings
from nnunet_fedmepd.demo_data.sites import default_site_name
from nnunet_fedmepd.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
PAPER = ("brats2018_paper", "brats2020_paper")
DEMOS = ("demo", "demo_quick")
RECIPES = [*PAPER, *DEMOS, "evidence", "evidence_small", "two_hospitals"]
SMALL = 'name = "s"\nmodalities = ["T1"]\nrounds = 2\n[[site]]\nname = "ü"\ndataset = 1\nlead = true\n'


def numbered(sites: dict[str, tuple[str, ...]]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return site -> its dataset, as `fedmepd convert` numbers them, and its modalities."""
    names = [site.name for site in in_site_order(SiteAssignment(name, ()) for name in sites)]
    return {name: (FIRST_ID + i, sites[name]) for i, name in enumerate(names)}


def test_a_file_is_read_with_its_mistakes_and_its_path(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text(SMALL, "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_federation(file)
    assert str(refused.value).startswith(f"{file} has 1 mistake")
    assert "site[0].name: 'ü' cannot be a folder's name" in str(refused.value)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text(SMALL.replace("ü", "u"), "utf-8-sig")
    assert load_federation(file).leads[0].name == "u"


def test_a_file_that_is_no_toml_is_refused_with_the_place_in_it(tmp_path):
    (tmp_path / "f.toml").write_text("rounds = 1\nname = ")
    with pytest.raises(ConfigurationError, match=r"f.toml is no valid TOML: Invalid value \(at .*\)"):
        load_federation(tmp_path / "f.toml")
    (tmp_path / "f.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigurationError, match=r"f.toml is no valid TOML: 'utf-8' codec"):
        load_federation(tmp_path / "f.toml")


def test_a_file_that_is_not_there_is_named_beside_the_recipes(tmp_path):
    for wrong in ("nothing", tmp_path):
        with pytest.raises(ConfigurationError, match=rf"no federation file '{wrong}'.*brats2018_paper.*demo"):
            load_federation(wrong)


def test_every_recipe_is_valid_and_found_by_its_name():
    assert recipes() == RECIPES
    for name in recipes():
        assert isinstance(load_federation(name), Federation)
        assert load_federation(recipe(name)) == load_federation(name)
    with pytest.raises(ConfigurationError, match="no recipe 'paper'; expected one of brats2018_paper"):
        recipe("paper")


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_have_the_datasets_that_the_conversion_makes(name):
    federation = load_federation(name)
    found = {site.name: (site.dataset, site.modalities) for site in federation.site}
    assert found == numbered(PAPER_MODALITIES)
    assert [site.name for site in federation.leads] == ["lead"]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_have_its_switches(name):
    federation = load_federation(name)
    method, personalization = federation.method, federation.personalization
    training = federation.training_settings(TrainingSettings())
    assert (federation.rounds, federation.epochs_per_round) == (1000, 1)
    assert (method.variant, method.lead_share, method.n_anchors_per_class) == ("fedmepd", 0.3, 4)
    assert (method.calibration, method.site_weights) == ("replace", "equal")
    assert (personalization.warm_up_rounds, personalization.patience) == (30, 10)
    assert (training.optimizer, training.learning_rate, training.loss) == ("adam", 2e-4, "published")


def test_choices_are_measured_on_sites_of_the_main_comparison_planned_alike():
    whole, small = load_federation("evidence"), load_federation("evidence_small")
    assert set(small.site) < set(whole.site)
    assert (small.planning, small.training, small.run) == (whole.planning, whole.training, whole.run)


@pytest.mark.parametrize("name", DEMOS)
def test_the_demos_recipes_have_the_sites_and_datasets_of_the_generated_data(name):
    federation = load_federation(name)
    sites = {site.name: site.modalities or () for site in federation.site}
    assert set(sites) == {default_site_name(i) for i in range(5)}
    assert {site.name: (site.dataset, site.modalities) for site in federation.site} == numbered(sites)
    brats = ("T1", "T1ce", "T2", "FLAIR")
    assert list(sites.values()) == [brats, ("T1ce",), ("T2", "FLAIR"), ("T1", "T2"), brats]
    assert federation.leads == federation.site[:1]


def test_reading_a_federation_file_imports_neither_nnunet_nor_an_engine():
    script = (
        "import sys; from nnunet_fedmepd.config.loading import load_federation; load_federation('demo'); "
        "print([name for name in ('nnunetv2', 'flwr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.installation
def test_a_wheel_holds_the_recipes_and_finds_them(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    script = "from nnunet_fedmepd.config.loading import recipe, recipes; print(recipes(), recipe('demo'))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "installed", capture_output=True, text=True, check=True
    )
    demo = tmp_path / "installed" / "nnunet_fedmepd" / "recipes" / "demo.toml"
    assert done.stdout.strip() == f"{RECIPES} {demo}"
