import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.experts.mixture import TIERS
from models.spec import (
    UNITS,
    Categorical,
    Label,
    Learner,
    ModelSpec,
    Numeric,
    SpecError,
    Stream,
    fit_problem,
    from_json,
    parse_spec,
    read_spec,
    river_stages,
    signature,
    to_json,
)
from stream_app.compress import FEWEST_ROWS

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights" / "model.toml"

ENDLESS = f"0x{'f' * 5000}"

TEXT = """\
name = "late"
task = "binary"

[label]
name = "late"
classes = ["no", "yes"]
wait_s = 3600

[features.numeric]
distance = {}
temp = {}

[features.categorical]
carrier = { size = 64, dim = 4 }
"a dest" = { size = 512 }

[features.categorical.origin]
size = 16
dim = 2

[features.rates]
half_lives_s = [7200, 86400.0]
keys = [
    [],
    ["carrier", "origin"],
]
slots = 2048
[learner]
kind = "torch"
hidden = [64, 32]

[optimiser]
learning_rate = 0.003

[tuning]
learning_rate = [0.001, 0.1]
"""


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def problem(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "model.toml")
    return str(caught.value)


def spec_of(**changes: object) -> ModelSpec:
    return msgspec.structs.replace(parse_spec(TEXT, "model.toml"), **changes)


def test_what_is_read() -> None:
    spec = parse_spec(TEXT, "model.toml")
    assert spec.label.wait_s == 3600.0
    assert isinstance(spec.label.wait_s, float)
    assert list(spec.features.numeric) == ["distance", "temp"]
    assert list(spec.features.categorical) == ["carrier", "a dest", "origin"]
    assert spec.features.categorical["a dest"] == Categorical(size=512, dim=4)
    assert spec.features.rates.keys == ((), ("carrier", "origin"))
    assert spec.tuning.learning_rate == (0.001, 0.1)
    assert spec.outputs == 1
    assert spec.score_names == ("no", "yes")
    assert spec.publish.keep == 20


def test_the_example_is_read() -> None:
    spec = read_spec(str(FLIGHTS))
    assert spec.name == "flights"
    assert len(spec.features.numeric) == 16


WRONG_VALUES = [
    # old, new, message
    ("0.003", '"fast"', 'line 33: optimiser.learning_rate is "fast", wanted a number'),
    ("0.003", "0", "line 33: optimiser.learning_rate is 0.0, wanted a number above 0"),
    ("0.003", "inf", "line 33: optimiser.learning_rate is Infinity, wanted a number above 0"),
    ("0.003", "nan", "line 33: optimiser.learning_rate is NaN, wanted a number above 0"),
    ("wait_s = 3600", "wait_s = -1", "line 7: label.wait_s is -1.0, wanted a number above 0"),
    ('"late"\ntask', '"my model"\ntask', 'line 1: name is "my model", wanted 1 to 100 letters,'),
    ('"late"\ntask', '"../x"\ntask', 'line 1: name is "../x", wanted 1 to 100 letters,'),
    ('"late"\ntask', "7\ntask", "line 1: name is 7, wanted a text"),
    (
        '"binary"',
        '"ranking"',
        'line 2: task is "ranking", wanted one of binary, multiclass, regression',
    ),
    (
        '["no", "yes"]',
        '["no"]',
        'line 6: label.classes is ["no"], wanted two classes, the second the positive one',
    ),
    (
        '["no", "yes"]',
        '["1", 1]',
        'line 6: label.classes is ["1", 1], wanted classes that differ when written as texts',
    ),
    ('["no", "yes"]', '["", "yes"]', 'line 6: label.classes is ["", "yes"], wanted classes that are no empty'),
    ('["no", "yes"]', f"[0, {2**63}]", f"line 6: label.classes is [0, {2**63}], wanted whole numbers of at most 64"),
    (
        '["no", "yes"]',
        "[false, true]",
        "line 6: label.classes is [false, true], wanted a list, each a whole number or a text",
    ),
    (
        '"binary"',
        '"multiclass"',
        'label.classes is ["no", "yes"], wanted 3 to 1000 classes for task multiclass',
    ),
    (
        '"binary"',
        '"regression"',
        'label.classes is ["no", "yes"], wanted none for task regression',
    ),
    ("distance = {}", "distance = 1", "line 10: features.numeric.distance is 1, wanted a table"),
    ("size = 64", "size = 1", "line 14: features.categorical.carrier.size is 1, wanted a whole"),
    (
        "dim = 4",
        "dim = 0",
        "features.categorical.carrier.dim is 0, wanted a whole number from 1 to",
    ),
    ("dim = 2", "dim = 2.5", "line 19: features.categorical.origin.dim is 2.5, wanted a whole"),
    ("size = 512", "size = 0", 'line 15: features.categorical."a dest".size is 0, wanted'),
    ("dim = 2", "dim = true", "features.categorical.origin.dim is true, wanted a whole number"),
    ("temp =", "carrier =", 'features.categorical.carrier is "numeric too", wanted a name of its'),
    ("temp =", '"" =', 'line 9: features.numeric is "", wanted names that are not empty'),
    (
        "[learner]",
        '[drift]\ninputs = ["temp", "carier"]\n[learner]',
        'line 29: drift.inputs is "carier", wanted names of features, such as carrier',
    ),
    ("[learner]", '[drift]\ninputs = ["temp", "temp"]\n[learner]', 'drift.inputs is ["temp", "temp"], wanted every'),
    (
        "[learner]",
        '[drift]\ninput_detector = "ddm"\n[learner]',
        'drift.input_detector is "ddm", wanted one of adwin, page_hinkley',
    ),
    ("[7200,", "[0,", "line 22: features.rates.half_lives_s is 0.0, wanted a number above 0"),
    ("[7200, 86400.0]", "[]", "features.rates.half_lives_s is [], wanted at least one, as keys"),
    (
        '["carrier", "origin"]',
        '["carier"]',
        'line 23: features.rates.keys is "carier", wanted names of categorical features, such as carrier',
    ),
    ('["carrier", "origin"]', '["distance"]', 'features.rates.keys is "distance", wanted names of'),
    ('["carrier", "origin"]', "[]", "features.rates.keys is [[], []], wanted every combination on"),
    (
        '["carrier", "origin"]',
        '["carrier", "carrier"]',
        'features.rates.keys is [[], ["carrier", "carrier"]], wanted every name once',
    ),
    (
        "slots = 2048",
        "slots = 1",
        "line 27: features.rates.slots is 1, wanted a whole number from 2",
    ),
    ("[64, 32]", "[]", "line 30: learner.hidden is [], wanted at least one layer for network mlp"),
    (
        "hidden = [64, 32]",
        'network = "wide_deep"\nhidden = []',
        "line 31: learner.hidden is [], wanted at least one layer for network wide_deep",
    ),
    ("[optimiser]", '[optimiser]\nname = "lbfgs"', 'line 33: optimiser.name is "lbfgs", wanted one of adadelta, '),
    (
        "[optimiser]",
        '[optimiser]\nsettings.momentum = "much"',
        'line 33: optimiser.settings.momentum is "much", wanted a number, a list of numbers, true or false',
    ),
    (
        "[learner]",
        "[blend]\nremembered = 17\n[learner]",
        "line 29: blend.remembered is 17, wanted a whole number from 0",
    ),
    ("[64, 32]", "[64, 0]", "line 30: learner.hidden is 0, wanted a whole number from 1 to 65536"),
    ("[64, 32]", "64", "line 30: learner.hidden is 64, wanted a list, each a whole number"),
    (
        "[0.001, 0.1]",
        "[0.1, 0.1]",
        "line 36: tuning.learning_rate is [0.1, 0.1], wanted a lower and",
    ),
    ("[0.001, 0.1]", "[0, 0.1]", "line 36: tuning.learning_rate is [0.0, 0.1], wanted a lower and"),
    ("[0.001, 0.1]", "[0.1]", "line 36: tuning.learning_rate is [0.1], wanted a list of 2 numbers"),
    ("[0.001, 0.1]", "[1, nan]", "tuning.learning_rate is [1.0, NaN], wanted a lower and a higher"),
    (
        "learning_rate = 0.003",
        "learning_rat = 0.003",
        "line 33: optimiser.learning_rat is unknown, did you mean learning_rate?",
    ),
    (
        "learning_rate = 0.003",
        "zzz = 0.003",
        "line 33: optimiser.zzz is unknown, wanted one of name, learning_rate",
    ),
    ("temp = {}", "temp = { size = 2 }", "line 11: features.numeric.temp.size is unknown, wanted"),
    ("[optimiser]", "[optimizer]", "line 32: optimizer is unknown, did you mean optimiser?"),
    ("task =", "tasks =", "line 2: tasks is unknown, did you mean task?"),
    ('task = "binary"', "", "model.toml: task is missing, wanted one of binary, multiclass, regr"),
    ('name = "late"\nclasses', "classes", "line 4: label.name is missing, wanted a text"),
    (
        "[label]",
        "[label]\nlabel.name = 1",
        "line 5: label.label is unknown, wanted one of name, cl",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_VALUES)
def test_wrong_values(old: str, new: str, message: str) -> None:
    assert message in problem(changed(old, new))
    assert problem(changed(old, new)).startswith("model.toml")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('task = "binary"', 'task = "multilabel"', 'line 2: task is "multilabel"'),
        ('task = "binary"', 'task = "Multi-Output"', 'line 2: task is "Multi-Output"'),
        ('task = "binary"', 'task = "multi_target"', 'line 2: task is "multi_target"'),
        ("wait_s = 3600", 'names = ["late", "cancelled"]', 'line 7: label.names is ["late", "cancelled"]'),
        ("wait_s = 3600", "outputs = 2", "line 7: label.outputs is 2"),
        ('name = "late"\nclasses', 'name = ["late", "early"]\nclasses', 'line 5: label.name is ["late", "early"]'),
        ("[label]", "[[label]]", 'label is [{"name": "late", "classes": ["no", "yes"], "wait_s": 3600}]'),
        ("[label]", "[labels]", 'line 4: labels is {"name": "late"'),
    ],
)
def test_several_labels_are_refused_with_what_to_do_instead(old: str, new: str, place: str) -> None:
    found = problem(changed(old, new))
    assert place in found
    assert found.endswith(
        ", wanted one label: multi-output is not supported; write one model.toml for each label, each with a name "
        "of its own, and send each event to the topic <name>.events of all of them"
    )


def test_ddm_counts_mistakes_and_regression_makes_none() -> None:
    text = 'name = "a"\ntask = "regression"\nlabel.name = "y"\nfeatures.numeric = { a = {} }\n[drift]\ndetector = "ddm"'
    assert problem(text) == (
        'model.toml line 6: drift.detector is "ddm", wanted adwin or page_hinkley for task regression, whose errors '
        "are numbers: ddm counts mistakes"
    )


WRONG_NUMBERS = [
    ("stream", "partitions", "0", "a whole number from 1 to 10000"),
    ("stream", "retention_s", "0", "a whole number from 1 to 10000000000"),
    ("stream", "max_record_bytes", "1000001", "a whole number from 1 to 1000000"),
    ("stream", "ahead_s", "-1", "a number of at least 0"),
    ("learner2", "batch_records", "0", "a whole number from 1 to 65536"),
    ("learner2", "batch_records", "65537", "a whole number from 1 to 65536"),
    ("learner2", "seed", "-1", "a whole number from 0 to"),
    ("blend", "half_life_events", "0", "a number above 0"),
    ("tuning2", "every_labels", "-1", "a whole number from 0 to"),
    ("tuning2", "window_labels", "0", "a whole number from 1 to"),
    ("tuning2", "trials", "0", "a whole number from 1 to"),
    ("tuning2", "shadow_labels", "0", "a whole number from 1 to"),
    ("tuning2", "margin", "-0.1", "a number of at least 0"),
    ("compression", "every_s", "0", "a number above 0"),
    ("compression", "calibration_rows", str(FEWEST_ROWS - 1), f"a whole number from {FEWEST_ROWS} to"),
    ("compression", "every_s", "1e9", "a number above 0 and at most 100000000"),
    ("compression", "kinds", '["int8", "int8"]', "every kind once"),
    ("compression", "loss_budget", "-0.1", "a number of at least 0"),
    ("publish", "every_s", "inf", "a number above 0"),
    ("publish", "every_s", "1e300", "a number above 0 and at most 100000000"),
    ("publish", "keep", "1", "a whole number from 2 to"),
    ("publish", "inline_bytes", "900001", "a whole number from 0 to 900000"),
]


@pytest.mark.parametrize(("section", "key", "value", "wanted"), WRONG_NUMBERS)
def test_wrong_numbers(section: str, key: str, value: str, wanted: str) -> None:
    if section.endswith("2"):  # a section that the text has
        section = section[:-1]
        text = changed(f"[{section}]", f"[{section}]\n{key} = {value}")
    else:
        text = f"{TEXT}\n[{section}]\n{key} = {value}\n"
    line = text.splitlines().index(f"{key} = {value}") + 1
    pattern = rf"model\.toml line {line}: {section}\.{key} is .+, wanted {wanted}"
    assert re.match(pattern, problem(text))


def test_sections_that_are_missing_or_no_tables() -> None:
    assert problem('name = "a"\ntask = "binary"') == "model.toml: label is missing, wanted a table"
    text = 'name = "a"\ntask = "regression"\nlabel.name = "price"\nfeatures = 3'
    assert problem(text) == "model.toml line 4: features is 3, wanted a table"
    text = text.replace("3", "{}")
    wanted = "wanted at least one numeric or categorical feature"
    assert problem(text) == f"model.toml line 4: features is {{}}, {wanted}"
    assert parse_spec(text.replace("{}", "{ numeric = { a = {} } }"), "x").score_names == ("price",)


def test_dotted_keys_and_inline_tables_are_found() -> None:
    text = 'name = "a"\ntask = "regression"\nlabel.name = ""\nfeatures.numeric = { a = {} }'
    assert problem(text) == 'model.toml line 3: label.name is "", wanted a text that is not empty'


def test_long_values_are_cut() -> None:
    assert len(problem(changed("0.003", f'"{"x" * 500}"'))) < 160


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[learner]", f"[learner]\nseed = {ENDLESS}", "line 29: learner.seed is too long to show, wanted a whole"),
        ("[64, 32]", f"[{ENDLESS}]", "line 30: learner.hidden is too long to show, wanted a whole number from 1"),
        ('["no", "yes"]', f"[0, {ENDLESS}]", "line 6: label.classes is too long to show, wanted whole numbers of"),
        ("wait_s = 3600", f"wait_s = {ENDLESS}", "line 7: label.wait_s is too long to show, wanted a number"),
    ],
)
def test_numbers_that_python_does_not_write_are_refused(old: str, new: str, message: str) -> None:
    """TOML's hexadecimal ones have no limit of digits."""
    assert message in problem(changed(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[64, 32]",
            "[65536, 65536]",
            "line 30: learner.hidden is [65536, 65536], wanted at most 50000000 parameters in all: "
            "features.categorical has 2336 (size * dim), the layers have 4296343553",
        ),
        (
            "size = 512",
            "size = 16777216, dim = 4096",
            'line 15: features.categorical."a dest" is {"size": 16777216, "dim": 4096}, wanted at most 50000000 '
            "parameters in all: features.categorical has 68719477024 (size * dim), the layers have 265217",
        ),
        (
            "slots = 2048",
            "slots = 16777216",
            "line 27: features.rates.slots is 16777216, wanted at most 20000000 cells in all: slots, keys, "
            "half_lives_s and the label make it 251658240",
        ),
    ],
)
def test_what_no_machine_holds_is_refused(old: str, new: str, message: str) -> None:
    assert problem(changed(old, new)) == f"model.toml {message}"


def test_the_largest_network_is_counted_to_the_last_parameter() -> None:
    """48,000,000 in the table; 34 to a unit (32 weights in, one out, its bias), and the last bias."""
    text = 'name = "a"\ntask = "regression"\nlabel.name = "y"\n[features.numeric]\na = {}\nb = {}\nc = {}\nd = {}\n'
    text += '[features.categorical]\ne = { size = 2000000, dim = 24 }\n[learner]\nkind = "torch"\nhidden = '
    assert parse_spec(f"{text}[58823]", "").learner.hidden == (58823,)
    assert "features.categorical has 48000000 (size * dim), the layers have 2000017" in problem(f"{text}[58824]")


def test_a_linear_network_may_be_too_large_too() -> None:
    classes = ", ".join(map(str, range(1000)))
    table = "size = 2, dim = 4096"
    tables = "\n".join(f"f{i} = {{ {table} }}" for i in range(13))
    text = f'name = "a"\ntask = "multiclass"\nlabel.name = "y"\nlabel.classes = [{classes}]\n'
    text += f'[features.categorical]\n{tables}\n[learner]\nkind = "torch"\nnetwork = "linear"\n'
    assert '21: learner.network is "linear", wanted at most 50000000 parameters in all' in problem(text)


def test_values_have_no_classes_to_balance() -> None:
    text = 'name = "a"\ntask = "regression"\nlabel.name = "y"\n[features.numeric]\na = {}\n'
    assert problem(f'{text}[learner]\nkind = "torch"\nclass_weights = "balanced"\n') == (
        'model.toml line 8: learner.class_weights is "balanced", wanted none for task regression'
    )


def test_a_linear_network_needs_no_layers() -> None:
    text = changed("hidden = [64, 32]", 'network = "linear"\nhidden = []')
    assert parse_spec(text, "model.toml").learner.hidden == ()


def test_what_is_no_toml() -> None:
    assert problem(TEXT + "\nname = \n") == "model.toml line 38 column 8: Invalid value"
    assert problem("a = " + "9" * 5000).startswith("model.toml: Exceeds the limit")
    assert problem("a = " + "[" * 9999).startswith("model.toml: maximum recursion depth exceeded")
    assert problem(changed("0.003", "9" * 400)).startswith("model.toml line 33: optimiser.learning_r")
    assert problem("a = 1\na = 2") == "model.toml line 2: Cannot overwrite a value"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(SpecError, match=r"none\.toml: cannot be read: No such file or directory"):
        read_spec(str(missing))
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.toml: byte 8 is not UTF-8"):
        read_spec(str(latin))
    marked = tmp_path / "marked.toml"
    marked.write_text(TEXT, "utf-8-sig")
    assert read_spec(str(marked)) == parse_spec(TEXT, "")


def test_json_there_and_back() -> None:
    for spec in (parse_spec(TEXT, "model.toml"), read_spec(str(FLIGHTS))):
        text = to_json(spec)
        assert from_json(text) == spec
        assert to_json(from_json(text)) == text
        assert signature(from_json(text)) == signature(spec)
        assert list(from_json(text).features.numeric) == list(spec.features.numeric)


def test_json_that_is_no_spec() -> None:
    with pytest.raises(SpecError, match="spec: not JSON: Expecting value"):
        from_json("")
    with pytest.raises(SpecError, match=r"spec: all is \[\], wanted a table"):
        from_json("[]")
    newer = to_json(spec_of()).replace('"publish":{', '"publish":{"colour":1,')
    with pytest.raises(SpecError, match=r"spec: publish\.colour is unknown"):
        from_json(newer)


@given(st.text(max_size=200))
def test_any_text_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError, match="model"):
        parse_spec(text, "model.toml")


def test_how_far_ahead_a_record_may_be() -> None:
    """A record a day ahead would expire all that waits: the join's clock is a running maximum."""
    assert parse_spec(TEXT, "").stream.ahead_s == 60.0
    assert parse_spec(f"{TEXT}[stream]\nahead_s = 3600", "").stream.ahead_s == 3600.0
    assert problem(f"{TEXT}[stream]\nahead_s = 86400") == (
        "model.toml line 38: stream.ahead_s is 86400.0, wanted at most label.wait_s (3600.0)"
    )
    assert problem(changed("wait_s = 3600", "wait_s = 30")) == (
        "model.toml: stream.ahead_s is 60.0, wanted at most label.wait_s (30.0)"
    )


def test_a_version_outlives_limits_set_after_it() -> None:
    head = spec_of(label=Label(name="late", classes=("no", "yes"), wait_s=30.0), stream=Stream(ahead_s=86400.0))
    assert from_json(to_json(head)) == head


KEEPS = [
    ("0.003", "0.1"),
    ("wait_s = 3600", "wait_s = 60"),
    ("[0.001, 0.1]", "[0.01, 0.2]"),
    ('name = "late"\ntask', 'name = "other"\ntask'),
    ("[learner]", "[learner]\nbatch_records = 64\nseed = 4"),
    ("[learner]", '[blend]\nkind = "none"\n[learner]'),
    ("[optimiser]", "[optimiser]\nsettings = { amsgrad = true, betas = [0.8, 0.9], weight_decay = 0.1 }"),
]
CHANGES = [
    (
        '["no", "yes"]',
        '["yes", "no"]',
        "label.classes: head has ['no', 'yes'], spec has ['yes', 'no']",
    ),
    ("classes = [", 'name = "soon"\nclasses = [', "label.name: head has late, spec has soon"),
    ("temp = {}\n", "", "features.numeric: head has ['distance', 'temp'], spec has ['distance']"),
    (
        "distance = {}\ntemp",
        "temp = {}\ndistance",
        "features.numeric: head has ['distance', 'temp']",
    ),
    ("size = 64", "size = 32", "features.categorical: head has [['carrier', 64, 4],"),
    ("7200", "7201", "features.rates.half_lives_s: head has [7200.0, 86400.0], spec has [7201.0"),
    ('["carrier", "origin"]', '["carrier"]', "features.rates.keys: head has [[], ['carrier', 'ori"),
    ("2048", "1024", "features.rates.slots: head has 2048, spec has 1024"),
    ("[64, 32]", "[64]", "learner.hidden: head has [64, 32], spec has [64]"),
    (
        "[learner]",
        '[learner]\nnetwork = "linear"',
        "learner.network: head has mlp, spec has linear; ",
    ),
    ("[learner]", '[learner]\nnetwork = "wide_deep"', "learner.network: head has mlp, spec has wide_deep"),
    ("[learner]", '[learner]\nclass_weights = "balanced"', "learner.class_weights: head has none, spec has balanced"),
]


@pytest.mark.parametrize(("old", "new"), KEEPS)
def test_what_leaves_the_signature(old: str, new: str) -> None:
    head, spec = parse_spec(TEXT, ""), parse_spec(changed(old, new), "")
    assert signature(spec) == signature(head)
    assert fit_problem(spec, head) == ""


@pytest.mark.parametrize(("old", "new", "message"), CHANGES)
def test_what_changes_the_signature(old: str, new: str, message: str) -> None:
    if new.startswith("name"):
        old, new = 'name = "late"\nclasses', 'name = "soon"\nclasses'
    head, spec = parse_spec(TEXT, ""), parse_spec(changed(old, new), "")
    assert signature(spec) != signature(head)
    assert fit_problem(spec, head).startswith(message)


def test_the_order_of_categorical_features_counts() -> None:
    head = spec_of()
    categorical = dict(reversed(head.features.categorical.items()))
    spec = spec_of(features=msgspec.structs.replace(head.features, categorical=categorical))
    assert signature(spec) != signature(head)
    assert fit_problem(spec, head).startswith("features.categorical: head has [['carrier', 64, 4]")


def test_layers_of_a_linear_network_do_not_count() -> None:
    text = changed("[learner]", '[learner]\nnetwork = "linear"')
    head, spec = parse_spec(text, ""), parse_spec(text.replace("[64, 32]", "[8]"), "")
    assert signature(spec) == signature(head)


def test_the_signature_never_moves() -> None:
    """Written in every announcement: a change of it would orphan all heads."""
    features = msgspec.structs.replace(spec_of().features, numeric={"a": Numeric()})
    assert signature(spec_of(features=features)) == "28fe8f1cfa9cbd5c"
    assert signature(spec_of(features=features, learner=Learner())) == "7c5b1354a460d6cc"


# The mixture --------------------------------------------------------------------------------------

MIXTURE = TEXT.replace('kind = "torch"\nhidden = [64, 32]', 'kind = "mixture"')


def test_a_mixture_is_what_learns_unless_the_spec_says_otherwise() -> None:
    spec = parse_spec(MIXTURE.replace('kind = "mixture"', ""), "model.toml")
    assert spec == parse_spec(MIXTURE, "model.toml")
    assert (spec.learner.kind, spec.learner.tier, spec.variants) == ("mixture", "standard", ())


def test_int8_is_made_of_networks_unless_the_spec_says_otherwise() -> None:
    assert spec_of().variants == ("int8",)
    assert parse_spec(f"{TEXT}[compression]\nkinds = []", "").variants == ()
    assert parse_spec(f"{MIXTURE}[compression]\nkinds = []", "").variants == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('network = "linear"', 'line 30: learner.network is "linear", wanted none for learner.kind mixture: networks'),
        ("hidden = [8]", "line 30: learner.hidden is [8], wanted none for learner.kind mixture: networks are of kind"),
        (
            'class_weights = "balanced"',
            'line 30: learner.class_weights is "balanced", wanted none for learner.kind mixture; a record\'s weight',
        ),
        ('tier = "huge"', 'line 30: learner.tier is "huge", wanted one of fast, standard, full'),
        (
            '[blend]\nkind = "explicit"',
            'line 31: blend.kind is "explicit", wanted proximal or none for learner.kind mix',
        ),
        (
            '[blend]\nkind = "literal"',
            'line 31: blend.kind is "literal", wanted proximal or none for learner.kind mixt',
        ),
        (
            '[compression]\nkinds = ["int8"]',
            'line 31: compression.kinds is ["int8"], wanted [] for learner.kind mixture, which has no graph',
        ),
        ("estimator = 'x'", 'line 30: learner.estimator is "x", wanted none for learner.kind mixture'),
    ],
)
def test_what_a_mixture_does_not_take_is_refused(more: str, message: str) -> None:
    text = problem(MIXTURE.replace('kind = "mixture"', f'kind = "mixture"\n{more}'))
    assert text.startswith(f"model.toml {message}")


def test_networks_and_estimators_do_not_take_each_others_settings() -> None:
    text = problem(RIVER.replace('kind = "river"', 'kind = "river"\nhidden = [8]'))
    assert 'learner.hidden is [8], wanted none for learner.kind river: networks are of kind = "torch"' in text


def test_what_a_mixtures_nets_cannot_hold_is_refused() -> None:
    """A code costs each hidden unit a weight; ``dim`` is for networks."""
    for tier, most in (("fast", 781_250), ("standard", 156_250), ("full", 65_104)):
        text = 'name = "a"\ntask = "regression"\nlabel.name = "y"\n[features.categorical]\n'
        text += f'a = {{ size = 2 }}\nb = {{ size = SIZE, dim = 4096 }}\n[learner]\ntier = "{tier}"\n'
        assert parse_spec(text.replace("SIZE", f"{most - 2}"), "").learner.tier == tier
        assert problem(text.replace("SIZE", f"{most - 1}")) == (
            f"model.toml line 6: features.categorical.b.size is {most - 1}, wanted at most {most} in all for tier "
            f"{tier}: the sizes make it {most + 1}"
        )


def test_the_units_are_those_of_the_tiers() -> None:
    for tier, made in TIERS.items():
        assert UNITS[tier] == made.hidden * (len(made.nets) + len(made.slow_nets))


def test_the_tier_is_part_of_what_a_mixture_is() -> None:
    standard = parse_spec(MIXTURE, "")
    fast = parse_spec(MIXTURE.replace('kind = "mixture"', 'kind = "mixture"\ntier = "fast"'), "")
    assert signature(fast) != signature(standard)
    assert fit_problem(fast, standard) == "learner.tier: head has standard, spec has fast"
    assert fit_problem(standard, spec_of()).startswith("learner.kind: head has torch, spec has mixture; learner.net")


# River --------------------------------------------------------------------------------------------

TREE = "river.tree.HoeffdingAdaptiveTreeClassifier"
RIVER = f"""
name = "late"
task = "binary"
[label]
name = "late"
classes = ["no", "yes"]
[features.numeric]
distance = {{}}
[learner]
kind = "river"
estimator = "{TREE}"
settings = {{ grace_period = 50 }}
[blend]
kind = "none"
[tuning]
every_labels = 0
[compression]
kinds = []
"""
PIPELINE = """
nominal = false
pipeline = [
    { estimator = "river.preprocessing.StandardScaler" },
    { estimator = "river.linear_model.LogisticRegression", settings = { l2 = 0.1 } },
]
"""


def test_a_river_estimator_or_pipeline_is_read() -> None:
    spec = parse_spec(RIVER, "model.toml")
    assert river_stages(spec.learner) == [(TREE, {"grace_period": 50})]
    head, tail = RIVER.split(f'estimator = "{TREE}"\nsettings = {{ grace_period = 50 }}\n')
    spec = parse_spec(head + PIPELINE + tail, "model.toml")
    assert [path.rsplit(".")[-1] for path, _ in river_stages(spec.learner)] == ["StandardScaler", "LogisticRegression"]
    assert spec.learner.pipeline[1].settings == {"l2": 0.1}
    assert from_json(to_json(spec)) == spec


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "none"', "", 'blend.kind is "proximal", wanted none for learner.kind river, which has no parameters'),
        ("every_labels = 0", "", "tuning.every_labels is 60000, wanted 0 for learner.kind river, whose settings are"),
        (
            "kinds = []",
            'kinds = ["int8"]',
            'compression.kinds is ["int8"], wanted [] for learner.kind river, which has',
        ),
        (f'estimator = "{TREE}"', "", 'learner.estimator is "", wanted either it or learner.pipeline for learner.kind'),
        ("settings =", "pipeline = [{estimator = 'x'}]\nsettings =", 'learner.estimator is "river.tree.HoeffdingAdapt'),
        ('kind = "river"', "", f'learner.estimator is "{TREE}", wanted none for learner.kind mixture'),
        ('kind = "river"', 'kind = "torch"', f'learner.estimator is "{TREE}", wanted none for learner.kind torch'),
        ('kind = "river"', 'kind = "river"\nclass_weights = "balanced"', 'learner.class_weights is "balanced", wanted'),
        (
            TREE,
            "os.system",
            "learner.estimator is \"os.system\", wanted what River can make: 'os.system' is no path of",
        ),
        ("grace_period", "grace_periods", "has no setting 'grace_periods'; did you mean grace_period?"),
        (TREE, "river.tree.HoeffdingTreeRegressor", "is no classifier, wanted one for task binary"),
    ],
)
def test_what_river_cannot_do_here_is_refused(old: str, new: str, message: str) -> None:
    assert old in RIVER
    text = problem(RIVER.replace(old, new, 1))
    assert text.startswith("model.toml")
    assert message in text


def test_settings_are_part_of_what_a_river_estimator_is() -> None:
    spec, other = parse_spec(RIVER, ""), parse_spec(RIVER.replace("50", "60"), "")
    assert signature(spec) != signature(other)
    assert fit_problem(spec, other).startswith("learner.stages: head has [['river.tree.Hoeffding")
    torch = parse_spec(TEXT, "")
    assert "learner.kind: head has torch, spec has river" in fit_problem(spec, torch)
    assert "learner.kind: head has river, spec has torch" in fit_problem(torch, spec)
