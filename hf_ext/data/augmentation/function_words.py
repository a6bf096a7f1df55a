"""English words that carry a sentence's grammar or its negation rather than its topic."""


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


STOP_WORDS = _words(
    "a an the this that these those some any each every either both all another other others such same own i me my",
    "mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers",
    "herself it its itself they them their theirs themselves one ones oneself who whom whose which what whoever",
    "whatever i'm i've i'd i'll we're we've we'd we'll you're you've you'd you'll he's he'd he'll she's she'd",
    "she'll it's it'd it'll they're they've they'd they'll that's that'd that'll there's there'd there'll here's",
    "who's who'd who'll what's what're what'll where's when's why's how's let's am is are was were be been being",
    "have has had having do does did doing done can could may might must shall should will would ought and or but",
    "if then else because since although though while whereas whether unless until till as than so yet of at by for",
    "with about against between among amongst into onto through throughout during before after above below to from",
    "up down in out on off over under upon toward towards within across along around behind beside besides beyond",
    "despite near per via again further once here there when where why how very too just only even also still ever",
    "quite rather almost more most much many few fewer less least enough several lot lots",
)
NEGATIONS = _words(
    "no not never none nobody nothing nowhere neither nor without cannot lack lacks lacking lacked hardly scarcely",
    "barely rarely seldom n't ain't aren't can't couldn't daren't didn't doesn't don't hadn't hasn't haven't isn't",
    "mayn't mightn't mustn't needn't oughtn't shan't shouldn't wasn't weren't won't wouldn't nope nah",
)
