"""Small regions removed from a label map in memory, by the rule that the polygons of slides are cleaned by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sampath_wsi.stages.vectorize.clean import merge_small
from sampath_wsi.stages.vectorize.regions import borders, connected_regions
from sampath_wsi.stages.vectorize.survey import RegionGraph


def without_small_regions(labels: NDArray[np.uint8], min_area_px: float) -> NDArray[np.uint8]:
    """Merge 4-connected regions of less than ``min_area_px`` into their neighbours; see :func:`merge_small`.

    Parameters
    ----------
    labels
        ``(height, width)``; 0, no class, is a label like any other here.

    Returns
    -------
    The same shape; a region that fills the whole map stays.
    """
    regions = connected_regions(labels)
    graph = RegionGraph(
        label=regions.label,
        area_map_px=regions.area,
        first_map_px=regions.first,
        classed_map_px=regions.area,
        probability_sum=None,
        touching=borders(regions),
    )
    graph, became = merge_small(graph, min_area_px, min_area_px)
    cleaned: NDArray[np.uint8] = graph.label[became][regions.image]
    return cleaned
