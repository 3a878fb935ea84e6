#!/usr/bin/env python3
"""Writes a data set of any length: conversations of about 1.2 kB with reasoning in five languages.

    python3 scripts/make_conversations.py 1000000 > million.jsonl

The same count and seed give the same bytes. Words come from short lists, so a tokenizer that remembers words is as fast
here as on texts that repeat theirs. Numbers make every row differ.
"""

import json
import random
import sys

WORDS = {
    "English": "first we have to work out how many apples are left in the basket after she gave half of them to her "
    "brother and then add those that were bought at the market on the same day because the question asks for all",
    "French": "il faut d'abord calculer combien de pommes restent dans le panier après qu'elle en a donné la moitié à son "
    "frère puis ajouter celles qui ont été achetées au marché le même jour parce que la question les demande toutes",
    "German": "zuerst müssen wir ausrechnen wie viele Äpfel noch im Korb liegen nachdem sie die Hälfte davon ihrem Bruder "
    "gegeben hat und dann die dazuzählen die am selben Tag auf dem Markt gekauft wurden weil nach allen gefragt wird",
    "Spanish": "primero hay que calcular cuántas manzanas quedan en la cesta después de que le dio la mitad a su hermano y "
    "luego sumar las que se compraron en el mercado el mismo día porque la pregunta pide todas ellas",
    "Italian": "prima dobbiamo calcolare quante mele restano nel cesto dopo che ne ha data la metà a suo fratello e poi "
    "aggiungere quelle comprate al mercato lo stesso giorno perché la domanda le chiede tutte",
}


def text(dice, language, length):
    words = WORDS[language].split()
    parts = []
    size = 0
    while size < length:
        word = str(dice.randrange(10_000)) if dice.random() < 0.12 else dice.choice(words)
        word += dice.choice([" ", " ", " ", " ", ", ", ". ", " = "])
        parts.append(word)
        size += len(word)
    return "".join(parts).strip()


def main():
    count = int(sys.argv[1])
    dice = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 3407)
    languages = list(WORDS)
    for number in range(count):
        language = languages[number % len(languages)]
        row = {
            "reasoning_language": language,
            "messages": [
                {"role": "system", "content": f"reasoning language: {language}\n\nYou answer questions about baskets."},
                {"role": "user", "content": f"{number}: " + text(dice, "English", 180)},
                {"role": "assistant", "content": text(dice, "English", 200), "thinking": text(dice, language, 520)},
            ],
        }
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
