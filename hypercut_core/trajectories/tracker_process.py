"""The other side of tracker.py: finds faces or hands in the frames of a folder.

    .venv-tracker/bin/python -I tracker_process.py FOLDER

Runs in an environment of its own (requirements-tracker.lock), so it imports nothing of this project. FOLDER holds
request.json and one .npy file a frame, uint8 RGB [H, W, 3]; the answer is FOLDER/landmarks.json:

    {"frames": [[{"points": [[x, y], ...], "confidence": c, "handedness": "left"}, ...], ...]}

with points in pixels of the frame, (0, 0) being the outer corner of the first pixel. Models come with mediapipe:
nothing is fetched.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

OTHER = {"Left": "right", "Right": "left"}  # MediaPipe speaks of a mirrored picture, as a phone shows its owner


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    kind, most, least = request["kind"], int(request["most"]), float(request["confidence"])
    with graph(kind, most, least) as solution:
        frames = [found(solution, kind, np.load(folder / name, allow_pickle=False)) for name in request["frames"]]
    partial = folder / "landmarks.json.partial"
    partial.write_text(json.dumps({"frames": frames}), encoding="utf-8")
    partial.replace(folder / "landmarks.json")


def graph(kind: str, most: int, least: float) -> Any:
    """MediaPipe's face mesh or hands as in its solutions, with the detector's score let out beside the landmarks.

    Every frame is looked at on its own: following a face from frame to frame would smooth its path.
    """
    from mediapipe.python.solution_base import SolutionBase
    from mediapipe.python.solutions import face_mesh, hands

    if kind == "face":
        return SolutionBase(
            binary_graph_path=face_mesh._BINARYPB_FILE_PATH,
            side_inputs={"num_faces": most, "with_attention": True, "use_prev_landmarks": False},
            calculator_params={
                "facedetectionshortrangecpu__facedetectionshortrange__facedetection__"
                "TensorsToDetectionsCalculator.min_score_thresh": least},
            outputs=["multi_face_landmarks", "face_detections"])
    return SolutionBase(
        binary_graph_path=hands._BINARYPB_FILE_PATH,
        side_inputs={"model_complexity": 1, "num_hands": most, "use_prev_landmarks": False},
        calculator_params={"palmdetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": least},
        outputs=["multi_hand_landmarks", "palm_detections", "multi_handedness"])


def found(solution: Any, kind: str, frame: np.ndarray) -> list[dict[str, Any]]:
    """All faces or hands of one frame, the surest first."""
    height, width = frame.shape[:2]
    side = max(height, width)  # a square: elsewhere the graph warns that it projects inexactly
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = frame
    result = solution.process(square)
    name, boxes = ("multi_face_landmarks", "face_detections") if kind == "face" else (
        "multi_hand_landmarks", "palm_detections")
    detections = []
    for index, mesh in enumerate(getattr(result, name) or ()):
        points = np.array([(mark.x, mark.y) for mark in mesh.landmark]) * side
        handedness = "" if kind == "face" else OTHER[result.multi_handedness[index].classification[0].label]
        detections.append({"points": points.round(4).tolist(), "handedness": handedness,
                           "confidence": score(points / side, getattr(result, boxes) or ())})
    return sorted(detections, key=lambda detection: -detection["confidence"])


def score(points: np.ndarray, boxes: Any) -> float:
    """Of the box whose centre is nearest to that of the points: the graph drops boxes without a face or hand."""
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    best = min(boxes, key=lambda box: float(np.hypot(*(middle(box) - centre))))
    return min(1.0, max(0.0, float(best.score[0])))


def middle(box: Any) -> np.ndarray:
    area = box.location_data.relative_bounding_box
    return np.array([area.xmin + area.width / 2, area.ymin + area.height / 2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
