"""The command `data`: what it says of a table, of pictures and of a regression, and the picture it draws."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from tiny_runs import config_file, run

from jaxtrain.commands.data import data_report
from jaxtrain.commands.data_pictures import draw_examples
from jaxtrain.data.dataset import Dataset
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import diabetes, digits
from jaxtrain.data.readers.image_folders import image_folder
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, as_source
from jaxtrain.data.texts import Text
from jaxtrain.trackers.figures import render

ROWS = ["colour,weight,kind", *(f"{'red' if i % 3 else 'blue'},{i if i % 5 else ''},{'ab'[i % 2]}" for i in range(60))]


def described(source: Source, name: str = "mine", **given: object) -> tuple[list[str], Dataset]:
    settings = Settings(**given)  # pyright: ignore[reportArgumentType]
    dataset = load_dataset(as_source(source, name), settings, standardised=name == "diabetes")
    return data_report(dataset, {"data": {"name": name, **vars(settings)}}), dataset


def test_the_command_describes_a_csv_and_draws_it(tmp_path):
    (tmp_path / "table.csv").write_text("\n".join(ROWS))
    given = {"data.name": "csv", "data.file": "table.csv", "data.target": "kind", "data.path": str(tmp_path)}
    config = config_file(tmp_path, {**given, "data.stratify": True, "data.batch_size": 16})
    done = run(tmp_path, "data", f"--config={config}")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "csv: 60 examples of 4 features, 2 classes" in lines
    assert any(line.startswith("test 6 cut by class from") for line in lines)
    assert any(line.startswith("colour category 2: blue, red") for line in lines)
    missing = next(line for line in lines if line.startswith("weight number mean"))
    assert missing.endswith("missing")
    assert "0 a 24" in lines
    assert "an epoch 3 steps of 16 examples" in lines
    picture = next(line.split()[1].rstrip(":") for line in lines if line.startswith("wrote"))
    with Image.open(tmp_path / picture) as image:
        assert image.size[0] > 300
    assert "next:" in lines


def test_pictures_are_described_by_channel_and_drawn_with_the_names_of_their_classes():
    source = digits(Path())
    names = tuple(f"the {label}" for label in range(10))
    report, dataset = described(Source(source.splits, class_names=names))
    assert report[0] == "mine: 1,797 examples of pictures of 8 × 8 with 1 channel, 10 classes"
    assert any("uint8 (8, 8, 1), normalised in the step" in line for line in report)
    figure = draw_examples(dataset)
    titles = [axes.get_title() for axes in figure.axes]
    first = dataset.split("train")
    assert titles[0] == names[first["targets"][0]]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), first["inputs"][0, ..., 0])


def test_masks_are_drawn_beside_their_pictures():
    images = digits(Path()).splits["train"].inputs[:40]
    report, dataset = described(Source({"train": (images, (images[..., 0] > 8).astype(np.uint8))}))
    assert any("targets uint8 (8, 8)" in " ".join(line.split()) for line in report)
    drawn = [axes.images[0].get_array() for axes in draw_examples(dataset).axes[:2]]
    np.testing.assert_array_equal(np.asarray(drawn[1]), np.asarray(drawn[0]) > 8)


def test_numbers_of_a_regression_are_described_in_their_units():
    report, dataset = described(diabetes(Path()), "diabetes")
    mean = dataset.info.target_mean[0]
    assert any(f"mean {mean:.4g}" in line for line in report if "targets" in line)
    assert len(render(draw_examples(dataset)).png) > 1000


def test_missing_numbers_are_no_bar_of_a_column_and_the_target_is_drawn_too():
    rows = np.arange(200.0)
    columns = {"known": rows, "gaps": np.where(np.arange(200) % 4, rows, np.nan)}
    _, dataset = described(Source({"train": (columns, rows * 2)}))
    drawn = {
        axes.get_title(): sum(bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle))
        for axes in draw_examples(dataset).axes
    }
    kept = dataset.split("train")
    missing = dataset.info.table.columns[1].absent(kept["inputs"][:, 1:])  # pyright: ignore[reportOptionalMemberAccess]
    assert missing > 10
    assert drawn == {
        "known": len(kept["inputs"]),
        "gaps": len(kept["inputs"]) - missing,
        "the target": len(kept["inputs"]),
    }


@pytest.mark.parametrize(("feed", "told"), [("host", "the host"), ("device", "the devices")])
def test_the_report_says_where_batches_are_gathered(feed, told):
    report, _ = described(digits(Path()), feed=feed)
    assert f"fed from     {told}: " in report[-1]
    assert "as data.feed says" in report[-1]


def test_a_picture_is_a_png_that_others_read():
    _, dataset = described(digits(Path()))
    with Image.open(io.BytesIO(render(draw_examples(dataset)).png)) as image:
        image.load()


def test_pictures_are_drawn_before_and_after_their_augmentation(tmp_path):
    chosen = (f"--config={config_file(tmp_path)}", "--config.augment.flip.probability=1.0")
    done = run(tmp_path, "data", *chosen, f"--workdir={tmp_path / 'drawn'}")
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'drawn' / 'augmented.png'}: examples before and after flip" in done.stdout
    with Image.open(tmp_path / "drawn" / "augmented.png") as image:
        drawn = np.asarray(image.convert("L"), np.float64)
    height, width = (size // part for size, part in zip(drawn.shape, (4, 6), strict=True))
    panels = drawn[: 4 * height, : 6 * width].reshape(4, height, 6, width).swapaxes(1, 2)
    inner = panels[:, :, height // 4 : -height // 4, width // 4 : -width // 4]
    assert (inner[1] == inner[2]).all()  # every example is mirrored in every row of those after
    assert (inner[0] != inner[1]).any()


def test_a_text_is_described_by_its_tokens_and_drawn_with_the_frequent_ones():
    content = "to be or not to be\n" * 40
    report, dataset = described(Source({"train": Text(content, context=20, tokens="characters")}), batch_size=8)
    assert report[0] == "mine: 36 examples of 20 characters"
    lines = [" ".join(line.split()) for line in report]
    assert "tokens uint8 (20,), 9 different characters" in lines
    assert "it begins 'to be or not to be\\nt'" in lines
    (axes,) = draw_examples(dataset).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[-1] == "' '"
    assert len(labels) == 9
    characters, counts = np.unique(list(content[: 20 * dataset.sizes["train"]]), return_counts=True)
    shares = dict(zip(map(repr, characters.tolist()), counts / counts.sum(), strict=True))
    bars: Any = axes.patches
    widths = [bar.get_width() for bar in bars]
    np.testing.assert_allclose(widths[-8:], [shares[label] for label in labels[-8:]])


def test_examples_that_are_passed_over_are_named(tmp_path):
    for row in range(12):
        place = tmp_path / "set" / "ab"[row % 2] / f"{row:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), row * 9, np.uint8)).save(place)
    damaged = tmp_path / "set" / "a" / "04.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    report, _ = described(image_folder(tmp_path, "set"), skip_bad=2, batch_size=2)
    begin = report.index("  passed over  1 examples that cannot be read:")
    assert "a/04.png (row 2): got a damaged or truncated PNG file" in report[begin + 1]
    report, _ = described(digits(Path()), skip_bad=2)
    assert not any("passed over" in line for line in report)
