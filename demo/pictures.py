"""Two images of a demo run: the workflow with counts of executions, and a contact sheet of the results."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

INK, PAPER, GREY = (32, 33, 36), (255, 255, 255), (154, 160, 166)
#: Light enough for black text, and distinct in greyscale too.
COLOURS = {"accepted": (129, 201, 149), "unsure": (253, 214, 99), "rejected": (242, 139, 130)}
BOX, GAP = (230, 58), 44
TILE = 200


def draw_workflow(definition: dict[str, Any], entered: Counter[str], path: Path) -> None:
    """Draw a state machine, with the number of executions that entered each state.

    Parameters
    ----------
    definition : dict
        A state machine in the States Language, without parallel branches.
    entered : Counter
        Executions by state name.
    path : Path
        PNG file to write.
    """
    states = definition["States"]
    places: dict[str, tuple[int, int]] = {}
    _place(states, definition["StartAt"], 0, 0, places)
    columns, rows = (max(place[axis] for place in places.values()) + 1 for axis in (0, 1))
    image = Image.new("RGB", (columns * (BOX[0] + GAP) + GAP, rows * (BOX[1] + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    corners = {n: (GAP + c * (BOX[0] + GAP), GAP // 2 + r * (BOX[1] + GAP)) for n, (c, r) in places.items()}
    for name, state in states.items():
        x, y = corners[name]
        for following in _following(state):
            there = corners[following]
            _arrow(draw, (x + BOX[0] // 2, y + BOX[1]), (there[0] + BOX[0] // 2, there[1]))
        for catcher in state.get("Catch", []):
            if catcher["Next"] in _following(state):
                continue
            there = corners[catcher["Next"]]
            middle = y + BOX[1] // 2
            draw.line([(x + BOX[0], middle), (there[0] + BOX[0] // 2, middle)], INK, 2)
            _arrow(draw, (there[0] + BOX[0] // 2, middle), (there[0] + BOX[0] // 2, there[1]))
            if catcher["ErrorEquals"] != ["States.ALL"]:
                names = ", ".join(catcher["ErrorEquals"])
                draw.text((x + BOX[0] + 8, middle - 20), names, INK, ImageFont.load_default(13))
    for name, (x, y) in corners.items():
        kind = states[name]["Type"]
        fill = COLOURS["accepted"] if kind == "Succeed" else COLOURS["unsure"] if kind == "Fail" else (232, 240, 254)
        draw.rounded_rectangle((x, y, x + BOX[0], y + BOX[1]), 10, fill, INK, 2)
        draw.text((x + BOX[0] // 2, y + 20), name, INK, ImageFont.load_default(17), anchor="mm")
        count = f"{entered[name]} of {max(entered.values(), default=0)} images"
        draw.text((x + BOX[0] // 2, y + 42), count, INK, ImageFont.load_default(12), anchor="mm")
    image.save(path)


def _place(states: dict[str, Any], name: str, column: int, row: int, places: dict[str, tuple[int, int]]) -> None:
    """Place the main path in one column, named errors in the next, and all other errors beyond it."""
    if name in places:
        return
    places[name] = (column, row)
    for aside, following in enumerate(_following(states[name])):
        _place(states, following, column + aside, row + 1, places)
    for catcher in states[name].get("Catch", []):
        aside = 2 if catcher["ErrorEquals"] == ["States.ALL"] else 1
        _place(states, catcher["Next"], column + aside, row + 1, places)


def _following(state: dict[str, Any]) -> list[str]:
    """Return the states that may follow one without an error."""
    named = [choice["Next"] for choice in state.get("Choices", [])]
    return [*named, *(state[key] for key in ("Default", "Next") if key in state)]


def _arrow(draw: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int]) -> None:
    draw.line([start, end], INK, 2)
    draw.polygon([(end[0] - 6, end[1] - 9), (end[0] + 6, end[1] - 9), end], INK)


def draw_contact_sheet(rows: list[dict[str, Any]], path: Path, columns: int = 5) -> None:
    """Draw a thumbnail of each image with its outcome.

    Parameters
    ----------
    rows : list of dict
        ``data`` (bytes or None), ``kind`` (accepted, unsure or rejected), ``title`` and ``subtitle``.
    path : Path
        PNG file to write.
    columns : int
        Thumbnails side by side.
    """
    height = TILE + 52
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * (TILE + 16) + 16, lines * (height + 16) + 16), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = 16 + number % columns * (TILE + 16), 16 + number // columns * (height + 16)
        draw.rounded_rectangle((x - 6, y - 6, x + TILE + 6, y + height + 2), 8, COLOURS[row["kind"]])
        thumbnail = _thumbnail(row["data"])
        sheet.paste(thumbnail, (x + (TILE - thumbnail.width) // 2, y + (TILE - thumbnail.height) // 2))
        draw.text((x + TILE // 2, y + TILE + 14), row["title"], INK, ImageFont.load_default(15), anchor="mm")
        draw.text((x + TILE // 2, y + TILE + 36), row["subtitle"], INK, ImageFont.load_default(12), anchor="mm")
    sheet.save(path)


def _thumbnail(data: bytes | None) -> Image.Image:
    try:
        image: Image.Image = Image.open(io.BytesIO(data or b""))
        image = ImageOps.exif_transpose(image).convert("RGB")
    except OSError:
        page = Image.new("RGB", (TILE * 3 // 4, TILE), PAPER)
        ImageDraw.Draw(page).text(
            (page.width // 2, page.height // 2), "?", GREY, ImageFont.load_default(90), anchor="mm"
        )
        return page
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
