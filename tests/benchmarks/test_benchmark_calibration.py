import numpy as np
import pytest


def test_rates_by_hand(load_benchmark):
    """Three people under two cameras, in the plane: the angles between their images are known."""
    degrees = np.radians([0, 10, 40, 60, 90, 170])
    features = 2 * np.column_stack([np.cos(degrees), np.sin(degrees)])
    identities, cameras = np.array([1, 1, 2, 2, 3, 3]), np.array([1, 2, 1, 2, 1, 2])
    # Matches are 10, 20 and 80 degrees apart; others under two cameras 60, 170, 30, 130, 80 and 30.
    thresholds = [float(np.cos(np.radians(angle))) for angle in (5, 45, 75)]
    alike, less_alike = load_benchmark("calibration").measure(features, identities, cameras, thresholds)
    np.testing.assert_allclose(alike, [0, 2 / 6, 3 / 6])
    np.testing.assert_allclose(less_alike, [1, 1 / 3, 1 / 3])


def test_it_prints_a_row_for_each_rate(load_benchmark, save_model, write_image, tmp_path, capsys):
    for person in range(1, 10):
        for camera in (1, 2):
            write_image(tmp_path / "crops" / f"{person:04d}_c{camera}.png", (64, 32))
    _, path = save_model(**{"MODEL.MGRE.BACKBONE": "build_osnet_backbone", "MODEL.BACKBONE.DEPTH": "x0_25"})
    words = [str(path), "--images", str(tmp_path / "crops"), "--splits", "3", "--identities"]
    assert load_benchmark("calibration").main([*words, "6"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["0.3"]  # 3 / (6 * 5 / 2) is 0.2
    assert load_benchmark("calibration").main([*words, "8"]) == 1
    assert "allowed: 2 to 7" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["model.pth"], ["model.pth", "--images"]])
def test_it_needs_images(load_benchmark, words):
    with pytest.raises(SystemExit):
        load_benchmark("calibration").parse_args(words)
