"""All constants that tune how hard the drawn set is. Raise ``VERSION`` with any change, here or in the drawing."""

# The version is a part of the folder's name, so images of two versions never mix.
VERSION = 2

# -- Identities --------------------------------------------------------------------------------------
# Identities that share colours, pattern, cut and build, so that only small details tell them apart.
COARSE_GROUP_SIZE = 3
# Least number of details in which two members of a group differ.
MIN_DETAIL_DIFFERENCES = 7
# Probabilities that a person has the detail at all.
LOGO_PROBABILITY = 0.9
BACK_PRINT_PROBABILITY = 0.9
SLEEVE_BAND_PROBABILITY = 0.6
ELBOW_PATCH_PROBABILITY = 0.4
KNEE_PATCH_PROBABILITY = 0.5
TROUSER_STRIPE_PROBABILITY = 0.4
BELT_PROBABILITY = 0.6
GLASSES_PROBABILITY = 0.25
BAG_PROBABILITY = 0.2

# -- Pose --------------------------------------------------------------------------------------------
# Front, back, to the image's left, to the image's right.
FACING_PROBABILITIES = (0.66, 0.24, 0.05, 0.05)
YAW_JITTER_DEG = 14.0
LEAN_JITTER_DEG = 4.0
# Amplitude of the walking legs.
STRIDE_DEG = (5.0, 24.0)
# Probability of one arm being bent up, as with a telephone.
BENT_ARM_PROBABILITY = 0.15

# -- Framing (detector) ------------------------------------------------------------------------------
# Height of the person in a good crop, and in one with a wide margin, as a fraction of the image's.
HEIGHT_RANGE = (0.84, 0.96)
WIDE_HEIGHT_RANGE = (0.62, 0.8)
WIDE_PROBABILITY = 0.05
# Sideways shift in a wide crop, as a fraction of the image's width.
WIDE_SHIFT = 0.14
# Shift of a good crop, and the largest part that a misaligned crop cuts off, as fractions of the image's side.
CENTER_JITTER = 0.03
CUT_OFF_PROBABILITY = 0.1
MAX_CUT_OFF = 0.12

# -- Scene -------------------------------------------------------------------------------------------
OCCLUDER_PROBABILITY = 0.08
DISTRACTOR_RANGE = (0, 2)
BYSTANDER_PROBABILITY = 0.04

# -- Camera ------------------------------------------------------------------------------------------
# Half widths of uniform ranges: first for a camera, then for an image around the values of its camera.
CAMERA_GAIN = 0.03
CAMERA_BRIGHTNESS = 0.03
CAMERA_CONTRAST = 0.06
IMAGE_GAIN = 0.03
IMAGE_BRIGHTNESS = 0.03
IMAGE_CONTRAST = 0.05
# Standard deviations of the blur, in pixels of a 128-pixel-high crop, and of the noise, in grey levels.
BLUR_SIGMA = (0.2, 0.6)
NOISE_SIGMA = (1.0, 5.0)
JPEG_QUALITY = (70, 95)
