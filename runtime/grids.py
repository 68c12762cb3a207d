"""Pictures in rows, with labels: the samples that a run leaves, and the sheets of an evaluation. Pillow alone."""
import textwrap

from PIL import Image, ImageDraw


def picture_grid(rows: list[list[Image.Image]], row_labels: list[str] | None = None,
                 column_labels: list[str] | None = None, side: int = 0) -> Image.Image:
    """Pictures in rows, of one size (`side` pixels, or that of the first); labels stand on the left and above."""
    side = side or rows[0][0].width
    left, top = (150 if row_labels else 0), (22 if column_labels else 0)
    columns = max(len(row) for row in rows)
    page = Image.new("RGB", (left + side * columns, top + side * len(rows)), "white")
    pen = ImageDraw.Draw(page)                              # its font is Pillow's own: no file to find
    for y, text in enumerate(row_labels or []):
        pen.multiline_text((5, top + y * side + 5), textwrap.fill(textwrap.shorten(text, 180), 24), "black")
    for x, text in enumerate(column_labels or []):
        pen.text((left + x * side + 4, 5), text, "black")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(picture.resize((side, side)), (left + x * side, top + y * side))
    return page
