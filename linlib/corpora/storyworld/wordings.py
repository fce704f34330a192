"""How a story is told: the wordings of its parts, as templates."""

INTRODUCTION = (
    (
        "once upon a time, there was {hero}.",
        "once there lived {hero}.",
        "this is the story of {hero}.",
        "there once was {hero}.",
    ),
    (
        "{name} lived {home} and loved to eat {food}.",
        "{he} lived {home}, and {his} favorite food was {food}.",
        "{name} had a nice home {home}, with plenty of {food} to eat.",
    ),
    (
        "one day, {his} {origin} gave {him} {a_colour} {thing} made of {material}.",
        "{his} {origin} had made {a_colour} {thing} out of {material} just for {him}.",
        "for {his} birthday, {name} got {a_colour} {thing} from {his} {origin}. It was made of "
        "{material}.",
    ),
    (
        "{name} wanted to {use}.",
        '"Now I can {use}," said {name}.',
        "{he} could not wait to {use}.",
    ),
)
TROUBLE = (
    (
        "on {a_weather} {time}, {name} took the {thing} to the {place}.",
        "it was {a_weather} {time} when {name} took the {colour} {thing} to the {place}.",
        "one {weather} {time}, {he} walked to the {place} and took the {thing} along.",
    ),
    (
        "but then {happens}.",
        "suddenly, {happens}.",
        "but on the way, {happens}.",
    ),
    (
        "{name} was very {sad}.",
        "this made {name} {sad}.",
        '"Oh no, my {thing}!" cried {name}, who was now {sad}.',
    ),
    (
        "{he} {attempt}, but {fails}.",
        "first, {he} {attempt}. But {fails}.",
        "{name} {attempt}, but it was no use, because {fails}.",
    ),
)
HELP = (
    (
        "then {friend} came along.",
        "just then, {he} met {friend}.",
        "nearby, {friend} saw what had happened.",
    ),
    (
        "{helper} lived {helper_home} and was {adjective}.",
        "{helper} was {adjective}.",
        "like every {helper_kind}, {helper} could {can}.",
    ),
    (
        '"Can you help me?" asked {name}. "Of course," said {helper}, "I can {can}."',
        '"Why are you {sad}?" asked {helper}. {name} told {helper} about the {thing}. '
        '"I can help you," said {helper}.',
        '"Do not worry," said {helper}. "I can {can}. Let me help you."',
    ),
    (
        "{helper} {rescue}.",
        "so {helper} {rescue}.",
        "quickly, {helper} {rescue}.",
    ),
)
ENDING = (
    (
        "{name} was so {glad} to have the {colour} {thing} back.",
        "now {name} felt {glad} again.",
        '"Thank you, {helper}!" said {name}, who was very {glad}.',
    ),
    (
        "to say thank you, {he} {thanks}.",
        "that {time}, {name} {thanks}.",
        "{he} {thanks} to say thank you.",
    ),
    (
        "{name} learned that {lesson}.",
        "from that day on, {name} knew that {lesson}.",
        "and {he} never forgot that {lesson}.",
    ),
    (
        "{name} and {helper} became good friends.",
        "after that, the {kind} and the {helper_kind} were always together.",
        "they lived happily ever after.",
    ),
)
PARAGRAPHS = (INTRODUCTION, TROUBLE, HELP, ENDING)  # each of four parts, told in order
