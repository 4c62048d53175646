"""A served model of a table: columns by name, in the user's units, on the page as in requests."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import await_text, chromium, save_picture, set_width
from served_models import Server, in_binary, in_json, served
from tiny_runs import tiny

from jaxtrain import ExportedModel, Source, export_run, load_export
from jaxtrain.data.tables import TEXT
from jaxtrain.serve.interface import interface_of
from jaxtrain.serve.page import render_page
from jaxtrain.training.train import train_and_evaluate

INFER = "/v2/models/mlp/infer"
COUNT = 200


def trips(count: int) -> dict[str, Any]:
    """Columns with numbers far from 0, missing values and categories."""
    draw = np.random.default_rng(0)
    day = draw.normal(2460000.5, 3.0, count)
    return {
        "day": np.where(np.arange(count) % 17 == 1, np.nan, day),
        "length, in km": draw.exponential(10.0, count),
        "town": np.where(np.arange(count) % 19 == 2, "", draw.choice(["here", "there"], count)),
    }


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a regression whose numbers float32 could not hold."""
    folder = tmp_path_factory.mktemp("runs") / "table"
    columns = trips(COUNT)
    targets = 2460000.5 + 0.05 * columns["length, in km"]
    data = Source({"train": (columns, targets)})
    given = {"task.name": "regression", "loss.name": "mse", "data.name": "memory"}
    short = {"train.duration": "20 steps", "eval.every": "20 steps"}
    train_and_evaluate(tiny({**short, **given}), folder, quiet=True, data=data)
    return export_run(folder, data=data)[0]


@pytest.fixture(scope="module")
def model(export: Path) -> ExportedModel:
    return load_export(export)


@pytest.fixture(scope="module")
def server(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server"), export) as server:
        yield server


def test_columns_are_inputs_by_name_and_numbers_leave_in_their_units(server: Server, model: ExportedModel):
    described = server.ask("/v2/models/mlp").json
    assert {given["name"]: (given["datatype"], given["shape"]) for given in described["inputs"]} == {
        "day": ("FP64", [-1]),
        "length, in km": ("FP64", [-1]),
        "town": ("BYTES", [-1]),
    }
    assert described["outputs"] == [{"name": "numbers", "datatype": "FP64", "shape": [-1]}]
    columns = trips(40)
    columns["town"][5] = "elsewhere"
    expected = model.predict(columns)["numbers"]
    assert np.ptp(expected) < 10
    kinds = {"town": "BYTES", "length, in km": "FP64", "day": "FP64"}
    given = {
        name: (
            kind,
            np.where(columns["day"] != columns["day"], None, columns[name]) if name == "day" else columns[name],
        )
        for name, kind in kinds.items()
    }
    plain = server.ask(INFER, in_json(given))
    assert plain.status == 200, plain.body
    np.testing.assert_allclose(plain.outputs["numbers"], expected, rtol=0, atol=1e-5)
    texts = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in columns["town"].tolist())
    packed = {
        "day": ("FP64", columns["day"]),
        "length, in km": ("FP64", columns["length, in km"]),
        "town": ("BYTES", np.frombuffer(texts, np.uint8)),
    }
    body, length = in_binary(packed, parameters={"binary_data_output": True})
    body = body.replace(f'"shape": [{len(texts)}]'.encode(), b'"shape": [40]')
    changed = len(f"[{len(texts)}]") - len("[40]")
    binary = server.ask(INFER, body, Inference_Header_Content_Length=str(int(length) - changed))
    assert binary.status == 200, binary.body
    np.testing.assert_array_equal(binary.outputs["numbers"], plain.outputs["numbers"])


def test_the_card_tells_inputs_from_outputs_and_names_the_columns_of_each(export: Path):
    card = (export / "README.md").read_text()
    assert "| input | `numbers` | (n, 2) | float32 |" in card
    assert "| output | `numbers` | (n) | float32 |" in card
    assert "The columns of the input `numbers`: `day`, `length, in km`.\n" in card
    assert "The columns of the input `codes`: `town`.\n" in card


def test_the_page_names_a_single_number_by_the_column_of_the_target(model: ExportedModel):
    config = model.description["config"]
    of_column = {**config, "data": {**config["data"], "target": "minutes"}}
    named = replace(model, description={**model.description, "config": of_column})
    assert '"targets": ["minutes"]' in render_page(named, interface_of(named), "mlp")


WIDTHS = {"desk": 1300, "phone": 400}


@pytest.mark.needs("browser")
@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_takes_a_pasted_row_and_shows_the_number_in_its_unit(
    server: Server, model: ExportedModel, device: str, tmp_path: Path
):
    def shown(row: dict[str, Any]) -> str:
        number = model.predict(
            {name: np.array([value], TEXT if name == "town" else np.float64) for name, value in row.items()}
        )["numbers"]
        return f"{float(number[0]):.12g}"

    with chromium(tmp_path, f"127.0.0.1:{server.port}") as page:
        set_width(page, WIDTHS[device])
        page.open(server.url)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is as wide as its window"
        paste = "part('pasted').value = {!r}; part('pasted').dispatchEvent(new Event('input')); part('predict').click()"
        page.evaluate(paste.format('town,day,"length, in km"\nthere,2460001.25,12.5'))
        await_number(page, shown({"day": 2460001.25, "length, in km": 12.5, "town": "there"}))
        page.evaluate(paste.format("\t3.5\there"))
        await_number(page, shown({"day": np.nan, "length, in km": 3.5, "town": "here"}))
        save_picture(page, tmp_path / f"{device}.png")
        page.evaluate(paste.format("1,2"))
        await_text(page, "#error", "2 values; expected 3: day, length, in km, town")
        await_text(page, "#result", "Nothing yet.")
        page.evaluate(paste.format('7,3.5,"an ""inn""; far"'))
        await_number(page, shown({"day": 7, "length, in km": 3.5, "town": 'an "inn"; far'}))
        unknown = 'town: "an "inn"; far" is no category of training, and counts as none of them'
        await_text(page, "#result p.note", unknown)
        page.evaluate("part('fields').dispatchEvent(new Event('input'))")
        page.evaluate("fillRow({day: 'soon', town: 'here'}); part('predict').click()")
        await_text(page, "#error", 'day: "soon" is no number')
        page.evaluate("part('examples').querySelector('button').click()")
        expected = model.read_examples()[1]["numbers"][0]
        await_number(page, f"{float(expected):.12g}")
        assert page.errors == []


def await_number(page: Any, text: str) -> None:
    """Waits until the page shows a number; its last digit may differ, as in batches of other sizes."""
    await_text(page, "#error", "")
    script = "parseFloat(document.querySelector('#result td.number')?.innerText)"
    page.evaluate(f"""new Promise((resolve) => {{
        const look = () => Math.abs({script} - {text}) < 1e-4 ? resolve() : setTimeout(look, 5);
        look();
    }})""")
