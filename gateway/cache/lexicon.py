"""Words that `gateway.cache.facts` knows: what carries no meaning, what means the same, and what must not be passed over."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ASKS: Final = frozenset({"who", "whom", "whose", "when", "where", "why", "how"})
MEASURES: Final = frozenset(
    {"many", "much", "long", "often", "old", "far", "big", "large", "tall", "high", "deep", "fast", "heavy"}
)

NEGATIONS: Final = frozenset(
    "not no never none nothing nobody neither nor without cannot cant dont doesnt didnt isnt arent wasnt werent wont except excluding "
    "unless hardly nicht kein keine keinen nie ohne ne pas jamais sans nunca sin non mai senza não nem sem niet geen nooit zonder".split()
)
BE: Final = frozenset("is are am was were be been being".split())
PUNCTUATION: Final = frozenset(".,;:!?'\"()-–—…«»“”‘’„¿¡")  # noqa: RUF001 — each of them on purpose
WITHOUT: Final = frozenset({"without", "except", "excluding", "ohne", "sans", "sin", "senza", "sem", "zonder"})
AUXILIARIES: Final = frozenset(
    "is are am was were do does did has have had can could may might should shall will would must".split()
)
PRESENT: Final = frozenset("is are am do does has have be been being can should may will".split())
REQUESTS: Final = frozenset({"can", "could", "would", "will"})  # with `you` a request, not a question
POLITE: Final = frozenset("please hi hello hey so and well tell me say know wondering wonder i was just kindly".split())
CHOICES: Final = frozenset({"what", "which"})
MOMENTS: Final = frozenset({"y", "d"})  # a year or a day that is asked for is a when
ARTICLES: Final = frozenset("the a an my your his her our their this that these those".split())
PROCEDURES: Final = frozenset("steps way ways procedure process instructions".split())
WISHES: Final = (
    "i want to",
    "i need to",
    "i would like to",
    "i'd like to",
    "help me",
    "i wish to",
    "i have to",
    "i am trying to",
)
PAST_VERBS: Final = frozenset(
    "wrote won built made went took lost gave came found got began sold bought said told ran led met paid sent spent held kept left "
    "became broke brought chose drew drove fell felt flew grew knew rose saw sang spoke stole taught thought threw wore".split()
)
TENSES: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("was", "were", "did", "had"), "past") | dict.fromkeys(("will", "shall"), "future")
)
# A preposition that says which part the next word plays.
ROLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "from": "from", "to": "to", "into": "to", "in": "in", "within": "in", "before": "before", "after": "after", "until": "until",
        "since": "since", "than": "than", "by": "by", "between": "between", "over": "over", "under": "under", "against": "against",
        "above": "over", "below": "under", "towards": "to", "via": "via", "through": "via",
    }
)  # fmt: skip

# Politeness, articles, copulas, and what only makes a question of a wish.
FILLERS: Final = frozenset(
    "a an the this that these those of is are am be been being they it its it's that's there there's do does doing done "
    "what's have has having "
    "i i'm i'd i'll i've me we us you one ones someone somebody people and or so then well just also please kindly hi hello hey thanks "
    "thank can could would may might able possible possibly tell show give explain describe know like want wanna need help let let's "
    "say wonder wondering wondered asking ask question quick quickly exactly actually basically simply really maybe perhaps "
    "about on at for with as to in "
    "into from by what what're which whats some any anyone way ways steps step instructions go going get getting got make sure if "
    "whether here now dear sir madam looking find figure understand understanding idea mind anybody calculate "
    "compute determine procedure process".split()
) - {"or", "now"}

NUMBERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        word: str(value)
        for value, words in {
            0: "zero", 1: "one once single", 2: "two twice double both couple pair", 3: "three thrice triple", 4: "four quadruple",
            5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve dozen", 13: "thirteen",
            14: "fourteen", 15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen", 20: "twenty", 30: "thirty",
            40: "forty", 50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety", 100: "hundred", 1000: "thousand",
            1000000: "million", 1000000000: "billion", 0.5: "half", 0.25: "quarter",
        }.items()
        for word in words.split()
    }
    | {word: str(value) for value, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)}
)  # fmt: skip

_UNIT_NAMES: Final[Mapping[str, str]] = {
    "km": "km kms kilometer kilometers kilometre kilometres",
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "mi": "mi mile miles",
    "ft": "ft foot feet",
    "in": "inch inches",
    "yd": "yd yard yards",
    "kg": "kg kgs kilo kilos kilogram kilograms kilogramme",
    "g": "g gram grams gramme grammes",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds £ gbp sterling",
    "oz": "oz ounce ounces",
    "t": "ton tons tonne tonnes",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "gal": "gal gallon gallons",
    "pt": "pint pints",
    "cup": "cup cups",
    "c": "c °c celsius centigrade",
    "f": "f °f fahrenheit",
    "k": "k kelvin kelvins",
    "%": "% percent percentage pct",
    "usd": "$ usd dollar dollars bucks",
    "eur": "€ eur euro euros",
    "jpy": "¥ jpy yen",
    "inr": "₹ inr rupee rupees",
    "chf": "chf franc francs",
    "ms": "ms millisecond milliseconds",
    "s": "s sec secs seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours hourly",
    "d": "day days daily",
    "w": "week weeks weekly",
    "mo": "month months monthly",
    "y": "y yr yrs year years yearly annual annually",
    "b": "byte bytes",
    "kb": "kb kilobyte kilobytes kib",
    "mb": "mb megabyte megabytes mib",
    "gb": "gb gigabyte gigabytes gib",
    "tb": "tb terabyte terabytes tib",
    "bit": "bit bits",
    "mbps": "mbps mbit mbits",
    "gbps": "gbps gbit gbits",
    "hz": "hz hertz",
    "w_": "watt watts",
    "kw": "kw kilowatt kilowatts",
    "kwh": "kwh",
    "v": "v volt volts",
    "kmh": "kmh kph",
    "mph": "mph",
    "acre": "acre acres",
    "ha": "ha hectare hectares",
    "am": "am",
    "pm": "pm",
}
UNIT_NAMES: Final = frozenset(_UNIT_NAMES)
UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {word: unit for unit, words in _UNIT_NAMES.items() for word in words.split()}
)
# Those that are units without a number before them: a letter is one only behind a number.
ALWAYS_UNITS: Final = frozenset(word for word in UNITS if len(word) > 2 or not word.isalpha()) - {
    "foot",
    "cup",
    "cups",
    "second",
}

# Words that may stand for each other in a question. Each row is one meaning; opposites never share one.
_SAME: Final = """
buy purchase order acquire obtain
change modify update edit alter adjust
delete remove erase
begin start commence
end finish complete
stop cancel terminate discontinue
repair fix mend
reset restore recover
my mine
create make build built generate produce set
setup install configure set-up
big large huge
small little tiny
fast quick rapid speedy
price cost fee
error mistake fault problem issue
phone telephone mobile cellphone smartphone
car automobile vehicle
film movie
picture image photo photograph
doctor physician
job occupation profession
house home
shop store
kid child children
mother mom mum
father dad
author writer write wrote written
painter paint painted
winner win won
vaccine vaccination
inventor invent invented
discover discoverer discovered
password passcode
login log-in signin sign-in log
email e-mail mail
allow permit
use utilize utilise employ
choose select pick
send ship deliver mailing
return refund give-back
happen occur
reason cause why
method approach
meaning mean definition define
example sample
distance
population inhabitants residents
biggest largest
smallest littlest
quickest fastest
tallest highest
currency money
language tongue
average mean-value
connect attach link
convert transform turn
contact reach
cook prepare
boil boiling
translate translation
holiday vacation
company firm business
employee worker staff
maximum max
minimum
information info details
application app
document doc
directory folder
located location situated lie lies
bring carry
enroll register
""".strip().splitlines()

SAME: Final = tuple(tuple(row.split()) for row in _SAME)

# Longest first; what stands instead.
ENDINGS: Final = (
    ("ations", "at"), ("ation", "at"), ("ities", "ity"), ("iness", "y"), ("ingly", ""), ("edly", ""), ("ments", "ment"), ("ings", ""),
    ("ies", "y"),
    ("ied", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("ing", ""), ("ly", ""), ("ed", ""), ("s", ""),
)  # fmt: skip

SMALL: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "en": frozenset(
            "the is are of and what how does do can i my to in for which who when where why you was it a".split()
        ),
        "de": frozenset(
            "der die das ist sind und wie was wer wann wo warum ich mein meine kann man ein eine den dem zu von für".split()
        ),
        "fr": frozenset(
            "le la les est sont et comment quel quelle qui quand où pourquoi je mon ma peut un une des du de pour dans".split()
        ),
        "es": frozenset(
            "el los las es son y cómo como qué quién cuándo dónde por puedo mi una un del de la para en cuál".split()
        ),
        "it": frozenset(
            "il lo gli è sono e come che chi quando dove perché posso mio mia un una del della di per qual".split()
        ),
        "pt": frozenset(
            "o os as é são e como que quem quando onde por posso meu minha um uma do da de para qual".split()
        ),
        "nl": frozenset("de het is zijn en hoe wat wie wanneer waar waarom ik mijn kan een van voor welke".split()),
    }
)
