"""Facts about the public data sets: the layout each reader expects, and the counts that the authors published."""

from dataclasses import dataclass

from fastreid.data.datasets.bases import ImageDataset


@dataclass(frozen=True)
class PublishedSet:
    """A public data set, as the reader of that name reads it.

    Attributes:
        layout: the files that must lie in the data folder (FASTREID_DATASETS).
        counts: by split, (images, identities); None where distractors leave the number of identities open.
    """

    layout: str
    counts: dict[str, tuple[int, int | None]]


_CUHK03_LAYOUT = "cuhk03/cuhk03_release/cuhk-03.mat and cuhk03/cuhk03_new_protocol_config_{detected,labeled}.mat"
_CUHK03_LABELED = PublishedSet(
    layout=_CUHK03_LAYOUT,
    counts={"train": (7368, 767), "query": (1400, 700), "gallery": (5328, 700)},
)

PUBLISHED_SETS = {
    # Zheng et al., ICCV 2015. The 15913 are bounding_box_test without its 3819 junk images (-1).
    "Market1501": PublishedSet(
        layout="Market-1501-v15.09.15/{bounding_box_train,query,bounding_box_test}/0002_c1s1_000451_03.jpg",
        counts={"train": (12936, 751), "query": (3368, 750), "gallery": (15913, None)},
    ),
    # Zheng et al., ICCV 2017.
    "DukeMTMC": PublishedSet(
        layout="DukeMTMC-reID/{bounding_box_train,query,bounding_box_test}/0001_c2_f0046182.jpg",
        counts={"train": (16522, 702), "query": (2228, 702), "gallery": (17661, None)},
    ),
    # Zhong et al., CVPR 2017 (the new protocol). The toolbox's own name reads the labeled boxes.
    "CUHK03": _CUHK03_LABELED,
    "CUHK03Labeled": _CUHK03_LABELED,
    "CUHK03Detected": PublishedSet(
        layout=_CUHK03_LAYOUT,
        counts={"train": (7365, 767), "query": (1400, 700), "gallery": (5332, 700)},
    ),
    # Wei et al., CVPR 2018. The published 32621 training images are list_train.txt (30248) and list_val.txt (2373)
    # together; the toolbox's reader trains on the first alone.
    "MSMT17": PublishedSet(
        layout="MSMT17_V1/{train,test}/0000/ and MSMT17_V1/list_{train,val,query,gallery}.txt (or MSMT17_V2, "
        "with mask_train_v2 and mask_test_v2)",
        counts={"train": (30248, 1041), "query": (11659, 3060), "gallery": (82161, 3060)},
    ),
}


def count_differences(dataset: ImageDataset, name: str, *, combineall: bool) -> list[str]:
    """One sentence for each split of ``dataset`` whose counts are not the published ones; none for other data sets.

    With ``combineall`` the training split holds the test images as well, so it is not compared.
    """
    if name not in PUBLISHED_SETS:
        return []
    differences = []
    for split, (num_images, num_identities) in PUBLISHED_SETS[name].counts.items():
        if split == "train" and combineall:
            continue
        items = getattr(dataset, split)
        found = {"images": len(items), "identities": dataset.get_num_pids(items)}
        for what, published in (("images", num_images), ("identities", num_identities)):
            if published is not None and found[what] != published:
                differences.append(f"{split} has {found[what]} {what} (published: {published})")
    return differences
