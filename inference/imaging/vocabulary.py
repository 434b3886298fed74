"""Words and codes for body parts and views, as PS3.16 Annex L, CID 4009, CID 4010 and PS3.3 C.8.1.1 define them.

Words are upper case without blanks or punctuation.
"""

CHEST_WORDS = ("CHEST", "THORAX", "TORAX", "THORACIC", "LUNG", "PULMO", "POUMON", "BRUSTKORB", "MEDIASTIN")
"""A body part that contains one of these is a chest (unless it is a spine): CHESTABDOMEN, HEMITHORAX, LUNGS."""

CHEST_CODES = frozenset(
    {
        "816094009",  # SCT Thorax
        "51185008",  # SCT Thoracic structure, "Chest" of earlier editions
        "T-D3000",  # SRT Chest
        "43799004",  # SCT Intra-thoracic
        "T-D3213",  # SRT Intra-thoracic
        "39607008",  # SCT Lung
        "T-28000",  # SRT Lung
        "72410000",  # SCT Mediastinum
        "T-D3300",  # SRT Mediastinum
        "417437006",  # SCT Neck and Chest
        "416550000",  # SCT Chest and Abdomen
        "416152001",  # SCT Neck, Chest and Abdomen
        "416775004",  # SCT Chest, Abdomen and Pelvis
        "416319003",  # SCT Neck, Chest, Abdomen and Pelvis
    }
)

_OTHER_BODY_PARTS = """
ABDOMEN ABDOMENPELVIS ABD KUB ACJOINT ACROMIOCLAVICULAR ANKLE ANUS ARM BLADDER BRAIN BREAST CALCANEUS CALF
CAROTID CERVICAL CLAVICLE COCCYX COLON CSPINE CTSPINE ELBOW ESOPHAGUS EXTREMITY EYE FACE FACIAL FEMUR FIBULA
FINGER FINGERS FOOT FEET FOREARM GALLBLADDER HAND HANDS HEAD HEEL HIP HIPS HUMERUS INTESTINE JAW JOINT KIDNEY
KNEE KNEES LEG LEGS LIMB LSPINE LSSPINE LUMBAR LUMBOSACRAL MANDIBLE MAXILLA METACARPAL METATARSAL NASAL NECK
NOSE ORBIT ORBITS PATELLA PELVIS PENIS PHANTOM RADIUS RIB RIBS SACRUM SCAPULA SCJOINT SELLA SHOULDER SHOULDERS
SINUS SINUSES SKULL SPINE SSPINE STERNUM STOMACH TEETH TESTIS THIGH THUMB TIBIA TLSPINE TMJ TOE TOES TOOTH
TSPINE ULNA UTERUS WHOLEBODY WRIST WRISTS ZYGOMA LOWEREXTREMITY UPPEREXTREMITY LOWERLEG UPPERARM
"""
OTHER_BODY_PARTS = frozenset(_OTHER_BODY_PARTS.split())
FRONTAL_WORDS = frozenset({"PA", "AP", "FRONTAL", "POSTEROANTERIOR", "ANTEROPOSTERIOR"})

_NON_FRONTAL_WORDS = """
LATERAL LAT LL RL LLAT RLAT LEFTLATERAL RIGHTLATERAL LLD RLD DECUBITUS DECUB OBLIQUE OBL RLO LLO RAO LAO RPO
LPO AXIAL SAGITTAL TANGENTIAL CRANIOCAUDAL CAUDOCRANIAL LATEROMEDIAL MEDIOLATERAL SWIMMERS
"""
NON_FRONTAL_WORDS = frozenset(_NON_FRONTAL_WORDS.split())
"""Decubitus views are frontal by geometry, but the models have seen none: fluid and air lie elsewhere."""

FRONTAL_CODES = frozenset(
    {
        "272479007",  # SCT postero-anterior
        "399348003",  # SCT antero-posterior
        "399033003",  # SCT frontal
        "R-10206",  # SRT antero-posterior
        "R-10214",  # SRT postero-anterior
    }
)
NON_FRONTAL_CODES = frozenset(
    {
        "399173006",  # SCT left lateral
        "399198007",  # SCT right lateral
        "399067008",  # SCT lateral
        "399182000",  # SCT oblique
        "399135007",  # SCT left anterior oblique
        "399356000",  # SCT right anterior oblique
        "399006002",  # SCT left posterior oblique
        "399038007",  # SCT right posterior oblique
        "399059000",  # SCT postero-anterior oblique
        "399312000",  # SCT antero-posterior oblique
        "399184004",  # SCT left oblique
        "399236003",  # SCT right oblique
        "399061009",  # SCT axial
        "30730003",  # SCT Sagittal
        "R-10232",  # SRT right lateral
        "R-10236",  # SRT left lateral
    }
)
