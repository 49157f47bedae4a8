"""The English texts of hints and reasons: the one file a POS team translates. The codes are the stable part."""

from __future__ import annotations

from edge_agent.types import GateCode

HINTS: dict[GateCode, str] = {
    GateCode.NO_FACE: "Please stand in front of the camera.",
    GateCode.MULTIPLE_FACES: "One person at a time, please.",
    GateCode.TOO_FAR: "Please come closer.",
    GateCode.TOO_CLOSE: "Please step back a little.",
    GateCode.NOT_CENTERED: "Please move to the middle of the picture.",
    GateCode.FACE_CUT_OFF: "Your face is cut off: please move to the middle of the picture.",
    GateCode.TURN_LEFT: "Please turn your head a little to your left.",
    GateCode.TURN_RIGHT: "Please turn your head a little to your right.",
    GateCode.CHIN_UP: "Please raise your chin a little.",
    GateCode.CHIN_DOWN: "Please lower your chin a little.",
    GateCode.LOOK_STRAIGHT: "Please hold your head straight.",
    GateCode.TOO_BLURRY: "The picture is blurred: please hold still.",
    GateCode.HOLD_STILL: "Please hold still.",
    GateCode.TOO_DARK: "It is too dark: please turn towards the light.",
    GateCode.TOO_BRIGHT: "It is too bright: please turn away from the light.",
    GateCode.UNEVEN_LIGHT: "The light comes from one side: please turn a little.",
    GateCode.LOW_CONTRAST: "The picture has too little contrast: please clean the camera or change the light.",
    GateCode.EYES_HIDDEN: "Please show your eyes.",
    GateCode.MOUTH_HIDDEN: "Please uncover your mouth.",
    GateCode.SPOOF_SUSPECTED: "Please look into the camera yourself.",
    GateCode.LIVENESS_INPUT_REJECTED: "Please step back a little, into the middle of the picture.",
}
HOLD_ON = "Please hold on."


def hint_text(code: GateCode | None) -> str:
    """What to show the customer; None means that all is well."""
    return HOLD_ON if code is None else HINTS[code]
