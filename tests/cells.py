"""What the tests ask of a notebook's cells."""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def tags(cell):
    return cell.metadata.get("tags", [])


def said(output):
    """The text of one output: printed, shown or returned."""
    shown = output.get("data", {})
    return output.get("text") or shown.get("text/markdown") or shown.get("text/plain", "")
