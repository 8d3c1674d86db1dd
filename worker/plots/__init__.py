"""The pictures of a job: SVG and PNG from its report, the same bytes for the same figures.

Nothing here touches pyplot or its global state; matplotlib is imported when the first picture is drawn.
"""

from worker.plots.album import FOLDER, Picture, draw_all

__all__ = ["FOLDER", "Picture", "draw_all"]
