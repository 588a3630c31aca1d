import pytest

from blt.errors import ConfigurationError
from blt.lm.folder import download, read_config
from blt.model import ENTROPY_PRESETS, PRESETS, entropy_preset, preset


def test_every_preset_has_an_entropy_model():
    assert ENTROPY_PRESETS.keys() == PRESETS.keys()


def test_the_bundled_model_has_the_shapes_of_its_preset():
    config = read_config(download(None))
    assert (config.blt, config.entropy_model) == (preset("tiny"), entropy_preset("tiny"))


@pytest.mark.parametrize("find", [preset, entropy_preset])
def test_another_name_is_refused_with_those_there_are(find):
    with pytest.raises(ConfigurationError, match=r"^preset 'huge' is none of tiny, tinystories-55m, blt-1b, blt-8b$"):
        find("huge")
