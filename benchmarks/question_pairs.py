"""Questions, other words for each, and near misses: what a cache by meaning may take for the same, and what it must not.

Each block is a question, lines with `=` that ask the same, and lines with `#`, `@`, `!`, `%`, `~` and `?` that do not: another number,
another name, negated, another unit, another language, and anything else. The first half was looked at while the rules were written
(`gateway/cache/facts.py`), the second was written before and left alone: `TUNED` and `HELD_OUT`.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final, NamedTuple

KINDS: Final = {
    "=": "paraphrase",
    "#": "number",
    "@": "name",
    "!": "negated",
    "%": "unit",
    "~": "language",
    "?": "other",
}

_TEXT: Final = """
What is the capital of France?
= what's the capital of france
= Tell me the capital of France.
= Which city is the capital of France?
@ What is the capital of Spain?
@ what's the capital of germany
! Which city is not the capital of France?
~ Quelle est la capitale de la France ?
? What is the population of France?

How do I reset my password?
= How can I reset my password?
= I want to reset my password, how do I do that?
= Please help me reset my password.
@ How do I reset my Google password?
! How do I avoid having to reset my password?
! Why can't I reset my password?
~ Wie setze ich mein Passwort zurück?
? How do I change my username?

How many days of vacation do employees get after 2 years?
= After 2 years, how many vacation days do employees get?
= How many days of vacation does an employee get after two years?
# How many days of vacation do employees get after 5 years?
% How many days of vacation do employees get after 2 months?
% How many weeks of vacation do employees get after 2 years?
! How many days of vacation do employees not get after 2 years?
~ Wie viele Urlaubstage bekommen Mitarbeiter nach 2 Jahren?

Convert 100 USD to EUR.
= How much is 100 USD in EUR?
= Please convert 100 USD to EUR
# Convert 1000 USD to EUR.
% Convert 100 USD to GBP.
% Convert 100 EUR to USD.
~ Convierte 100 USD a EUR.

Who wrote Pride and Prejudice?
= Who was the author of Pride and Prejudice?
= Who is the writer of Pride and Prejudice?
@ Who wrote Sense and Sensibility?
@ Who wrote War and Peace?
! Who did not write Pride and Prejudice?
~ Wer hat Stolz und Vorurteil geschrieben?
? When was Pride and Prejudice written?

What is the boiling point of water in Celsius?
= At what temperature does water boil in Celsius?
= boiling point of water in celsius
% What is the boiling point of water in Fahrenheit?
@ What is the boiling point of ethanol in Celsius?
? What is the freezing point of water in Celsius?
~ Quel est le point d'ébullition de l'eau en Celsius ?

How do I enable two-factor authentication?
= how to enable two-factor authentication
= What are the steps to enable two-factor authentication?
! How do I disable two-factor authentication?
@ How do I enable two-factor authentication on GitHub?
# How do I enable three-factor authentication?
~ ¿Cómo activo la autenticación de dos factores?

Can I return a product after 30 days?
= Is it possible to return a product after 30 days?
= May I return a product after 30 days?
# Can I return a product after 60 days?
% Can I return a product after 30 months?
! Can I not return a product after 30 days?
? Can I return a product before 30 days?
~ Puis-je retourner un produit après 30 jours ?

What is the population of Tokyo in 2020?
= What was the population of Tokyo in 2020?
= Tell me the population of Tokyo in 2020
# What is the population of Tokyo in 2010?
@ What is the population of Osaka in 2020?
~ Wie viele Einwohner hatte Tokio 2020?
? What is the area of Tokyo in 2020?

What is the speed limit on highways in Germany in km/h?
= speed limit on German highways in km/h
= Tell me the highway speed limit in Germany in km/h.
% What is the speed limit on highways in Germany in mph?
@ What is the speed limit on highways in Italy in km/h?
~ Qual è il limite di velocità sulle autostrade in Germania in km/h?

Is it safe to take ibuprofen with alcohol?
= Can I take ibuprofen with alcohol safely?
= Is taking ibuprofen with alcohol safe?
@ Is it safe to take paracetamol with alcohol?
! Is it not safe to take ibuprofen with alcohol?
! Is it safe to take ibuprofen without alcohol?
~ Ist es sicher, Ibuprofen mit Alkohol zu nehmen?

How do I cancel my subscription?
= How can I cancel my subscription?
= What are the steps for cancelling my subscription?
= I'd like to cancel my subscription, please.
? How do I renew my subscription?
? How do I pause my subscription?
@ How do I cancel my Netflix subscription?
! I do not want to cancel my subscription.
~ Comment annuler mon abonnement ?

Write a Python function that reverses a string.
= Please write a function in Python that reverses a string.
= Write a Python function to reverse a string
@ Write a JavaScript function that reverses a string.
? Write a Python function that reverses a list.
? Write a Python function that sorts a string.
~ Schreibe eine Python-Funktion, die einen String umkehrt.

What time does the store open on Sunday?
= At what time does the store open on Sunday?
= what time does the shop open on sunday
@ What time does the store open on Monday?
? What time does the store close on Sunday?
! Why does the store not open on Sunday?
~ Um wie viel Uhr öffnet das Geschäft am Sonntag?

How much does shipping to Canada cost for a 5 kg package?
= What does shipping a 5 kg package to Canada cost?
= What is the cost of shipping a 5 kg package to Canada?
# How much does shipping to Canada cost for a 15 kg package?
% How much does shipping to Canada cost for a 5 lb package?
@ How much does shipping to Mexico cost for a 5 kg package?
? How much does shipping from Canada cost for a 5 kg package?
~ Combien coûte l'envoi d'un colis de 5 kg au Canada ?

Summarise chapter 3 of the report.
= Please summarise chapter 3 of the report
= Summarise chapter three of the report.
# Summarise chapter 4 of the report.
# Summarise chapter 13 of the report.
? Translate chapter 3 of the report.
~ Fasse Kapitel 3 des Berichts zusammen.

When was the Eiffel Tower built?
= When did they build the Eiffel Tower?
= In which year was the Eiffel Tower built?
@ When was the Empire State Building built?
? Where was the Eiffel Tower built?
? Why was the Eiffel Tower built?
~ Quand la tour Eiffel a-t-elle été construite ?

How many grams of protein are in 100 g of chicken?
= 100 g of chicken has how many grams of protein?
= How many grams of protein does 100 g of chicken have?
# How many grams of protein are in 200 g of chicken?
% How many ounces of protein are in 100 g of chicken?
@ How many grams of protein are in 100 g of salmon?
? How many grams of fat are in 100 g of chicken?
~ ¿Cuántos gramos de proteína hay en 100 g de pollo?

Does the premium plan include phone support?
= Is phone support included in the premium plan?
= Does the premium plan have phone support included?
@ Does the Basic plan include phone support?
! Does the premium plan not include phone support?
! Does the premium plan exclude phone support?
? Does the premium plan include email support?
~ Enthält der Premium-Tarif telefonischen Support?

Which flights go from Paris to Rome on Friday?
= Which flights are there from Paris to Rome on Friday?
= Show me flights from Paris to Rome on Friday.
= On Friday, which flights go to Rome from Paris?
? Which flights go from Rome to Paris on Friday?
@ Which flights go from Paris to Madrid on Friday?
@ Which flights go from Paris to Rome on Saturday?
~ Quels vols vont de Paris à Rome vendredi ?

What are the side effects of metformin?
= What side effects does metformin have?
= side effects of metformin
@ What are the side effects of atorvastatin?
! What are not side effects of metformin?
? What are the benefits of metformin?
~ Welche Nebenwirkungen hat Metformin?

Explain how photosynthesis works.
= How does photosynthesis work?
= Can you explain how photosynthesis works?
= explain to me how photosynthesis works please
? Explain how respiration works.
? Explain why photosynthesis works.
! Explain how photosynthesis does not work.
~ Expliquez comment fonctionne la photosynthèse.

What is 15% of 240?
= How much is 15 percent of 240?
= Calculate 15% of 240
# What is 25% of 240?
# What is 15% of 420?
% What is 15 of 240?
~ Was sind 15% von 240?

Who is the CEO of Microsoft?
= Who's Microsoft's CEO?
= Tell me who the CEO of Microsoft is.
@ Who is the CEO of Apple?
? Who was the CEO of Microsoft?
? Who is the CFO of Microsoft?
~ Wer ist der CEO von Microsoft?

How long does it take to charge the battery to 80%?
= How long does charging the battery to 80% take?
= How long will it take to charge the battery to 80 percent?
# How long does it take to charge the battery to 100%?
? How long does it take to drain the battery to 80%?
~ Wie lange dauert es, den Akku auf 80% zu laden?

Is my order 48213 delivered?
= Has my order 48213 been delivered?
= Was order 48213 of mine delivered?
# Is my order 48231 delivered?
# Is my order 48214 delivered?
! Why is my order 48213 not delivered?
~ Ist meine Bestellung 48213 geliefert?

What is the maximum file size for uploads?
= What's the max file size for uploads?
= maximum upload file size
= What is the maximum size of a file that I can upload?
? What is the minimum file size for uploads?
? What is the maximum file size for downloads?
~ Quelle est la taille maximale des fichiers à télécharger ?

How do I install Docker on Ubuntu?
= How can I install Docker on Ubuntu?
= how to install docker on ubuntu
= Installing Docker on Ubuntu, how does it work?
@ How do I install Docker on Windows?
@ How do I install Podman on Ubuntu?
? How do I uninstall Docker on Ubuntu?
~ Wie installiere ich Docker auf Ubuntu?

What did the company earn in Q2 2023?
= How much did the company earn in Q2 2023?
= What were the earnings of the company in Q2 2023?
# What did the company earn in Q3 2023?
# What did the company earn in Q2 2022?
? What did the company lose in Q2 2023?
~ Was hat das Unternehmen im Q2 2023 verdient?

Should I invest in bonds when interest rates rise?
= When interest rates rise, should I invest in bonds?
= Should I be investing in bonds when interest rates are rising?
? Should I invest in bonds when interest rates fall?
@ Should I invest in stocks when interest rates rise?
! Should I not invest in bonds when interest rates rise?
~ ¿Debería invertir en bonos cuando suben los tipos de interés?

---

What is the tallest mountain in Africa?
= Which mountain is the tallest in Africa?
= tallest mountain in africa
= Tell me the highest mountain in Africa.
@ What is the tallest mountain in Asia?
? What is the longest river in Africa?
? What is the second tallest mountain in Africa?
~ Quelle est la plus haute montagne d'Afrique ?

How can I export my data to CSV?
= How do I export my data to CSV?
= I need to export my data to CSV.
= What's the way to export my data as CSV?
@ How can I export my data to JSON?
? How can I import my data from CSV?
! How can I prevent my data from being exported to CSV?
~ Wie kann ich meine Daten als CSV exportieren?

How many calories are in 2 eggs?
= What number of calories do 2 eggs have?
= How many calories do two eggs contain?
= calories in 2 eggs
# How many calories are in 3 eggs?
# How many calories are in 12 eggs?
@ How many calories are in 2 bananas?
% How many kilojoules are in 2 eggs?
~ Combien de calories y a-t-il dans 2 œufs ?

When does the museum open on weekdays?
= At what time does the museum open on weekdays?
= When is the museum opening on weekdays?
? When does the museum close on weekdays?
? When does the museum open on weekends?
! When is the museum not open on weekdays?
~ Wann öffnet das Museum an Wochentagen?

What is the distance from London to Paris in kilometers?
= How far is it from London to Paris in kilometers?
= distance from london to paris in km
= How many kilometers is it from London to Paris?
% What is the distance from London to Paris in miles?
@ What is the distance from London to Berlin in kilometers?
@ What is the distance from Lyon to Paris in kilometers?
~ Quelle est la distance de Londres à Paris en kilomètres ?

Who painted the Mona Lisa?
= Who was the painter of the Mona Lisa?
= The Mona Lisa was painted by whom?
@ Who painted The Starry Night?
? When was the Mona Lisa painted?
? Who stole the Mona Lisa?
~ ¿Quién pintó la Mona Lisa?

Does this medicine contain lactose?
= Is there lactose in this medicine?
= Does this medicine have lactose in it?
@ Does this medicine contain gluten?
! Does this medicine not contain lactose?
! Is this medicine free of lactose?
~ Enthält dieses Medikament Laktose?

What is the interest rate for a 15 year mortgage?
= What's the interest rate on a 15-year mortgage?
= interest rate for a fifteen year mortgage
# What is the interest rate for a 30 year mortgage?
% What is the interest rate for a 15 month mortgage?
? What is the interest rate for a 15 year car loan?
~ Wie hoch ist der Zinssatz für eine Hypothek über 15 Jahre?

How do I add a user to the team?
= How can I add a user to the team?
= What's the procedure for adding a user to the team?
= Adding users to the team: how?
? How do I remove a user from the team?
? How do I add a team to the user?
! How do I stop a user from being added to the team?
~ Wie füge ich dem Team einen Benutzer hinzu?

Are dogs allowed in the hotel?
= Does the hotel allow dogs?
= Can I bring dogs to the hotel?
@ Are cats allowed in the hotel?
! Are dogs not allowed in the hotel?
? Are dogs allowed in the restaurant?
~ Sind Hunde im Hotel erlaubt?

Translate "good morning" into Spanish.
= How do you say "good morning" in Spanish?
= What is "good morning" in Spanish?
@ Translate "good morning" into Italian.
? Translate "good evening" into Spanish.
~ Traduisez « good morning » en espagnol.

What is the weight limit for carry-on bags in kg?
= What's the carry-on bag weight limit in kg?
= How heavy can carry-on bags be in kg?
% What is the weight limit for carry-on bags in pounds?
? What is the weight limit for checked bags in kg?
@ What is the weight limit for carry-on bags on Ryanair in kg?
~ Quelle est la limite de poids des bagages à main en kg ?

How do I merge two branches in Git?
= How can I merge two branches in Git?
= Git: how to merge 2 branches?
# How do I merge three branches in Git?
? How do I delete two branches in Git?
@ How do I merge two branches in Mercurial?
~ Wie führe ich zwei Branches in Git zusammen?

What vaccines do I need for Kenya?
= Which vaccines do I need for Kenya?
= What vaccinations are needed for Kenya?
@ What vaccines do I need for Brazil?
! What vaccines do I not need for Kenya?
~ Welche Impfungen brauche ich für Kenia?

Why is the sky blue?
= What's the reason the sky is blue?
= What makes the sky blue?
= why's the sky blue
? Why is the sea blue?
? Why is the sky red?
! Why is the sky not blue?
~ Warum ist der Himmel blau?

How much RAM does version 4.2 need?
= What amount of RAM does version 4.2 need?
= How much RAM is needed for version 4.2?
# How much RAM does version 4.3 need?
# How much RAM does version 2.4 need?
? How much disk does version 4.2 need?
~ Wie viel RAM braucht Version 4.2?

Who won the World Cup in 2014?
= Which team won the World Cup in 2014?
= The 2014 World Cup was won by whom?
= Who was the winner of the World Cup 2014?
# Who won the World Cup in 2018?
? Who lost the World Cup final in 2014?
? Who hosted the World Cup in 2014?
~ Wer hat die Weltmeisterschaft 2014 gewonnen?

How do I turn on dark mode?
= How can I turn on dark mode?
= how to turn dark mode on
= I'd like to turn on dark mode. How?
! How do I turn off dark mode?
? How do I turn on light mode?
@ How do I turn on dark mode in Slack?
~ Wie schalte ich den Dunkelmodus ein?

What is the deadline for applications for the spring term?
= When is the deadline for spring term applications?
= application deadline for the spring term
? What is the deadline for applications for the fall term?
? What is the fee for applications for the spring term?
~ Quelle est la date limite des candidatures pour le semestre de printemps ?

Is Java faster than Python?
= Is Java really faster than Python?
= Tell me if Java is faster than Python.
? Is Python faster than Java?
@ Is Java faster than Rust?
? Is Java slower than Python?
! Is Java not faster than Python?
~ Ist Java schneller als Python?

How long should I boil an egg for a soft yolk?
= For a soft yolk, how long should I boil an egg?
= How long should an egg be boiled for a soft yolk?
? How long should I boil an egg for a hard yolk?
? How long should I fry an egg for a soft yolk?
~ Wie lange soll ich ein Ei für ein weiches Eigelb kochen?

What is the refund policy for tickets under 50 euros?
= What's the refund policy on tickets under 50 euros?
= refund policy for tickets below €50
# What is the refund policy for tickets under 500 euros?
% What is the refund policy for tickets under 50 dollars?
? What is the refund policy for tickets over 50 euros?
~ Quelle est la politique de remboursement des billets de moins de 50 euros ?

Which countries border Switzerland?
= What countries border Switzerland?
= Tell me which countries border on Switzerland.
= Switzerland is bordered by which countries?
@ Which countries border Austria?
! Which countries do not border Switzerland?
# Which three countries border Switzerland?
~ Welche Länder grenzen an die Schweiz?

How do I contact the support team by phone?
= How can I reach the support team by phone?
= How do I contact the support team by telephone?
? How do I contact the support team by email?
? How do I contact the sales team by phone?
! How do I contact the support team without a phone?
~ Comment contacter l'équipe d'assistance par téléphone ?

What is the half-life of carbon-14?
= What's carbon-14's half-life?
= half-life of carbon-14
= How long is the half-life of carbon-14?
# What is the half-life of carbon-11?
@ What is the half-life of uranium-235?
~ Wie lang ist die Halbwertszeit von Kohlenstoff-14?

Give me three ideas for a birthday party.
= Please give me 3 ideas for a birthday party.
= I need three ideas for a birthday party
# Give me five ideas for a birthday party.
# Give me ten ideas for a birthday party.
? Give me three ideas for a wedding party.
~ Gib mir drei Ideen für eine Geburtstagsfeier.

Can children under 6 travel for free?
= Do children under 6 travel for free?
= Is travel free for children under six?
= Can kids under 6 travel for free?
# Can children under 16 travel for free?
? Can children over 6 travel for free?
! Can children under 6 not travel for free?
% Can children under 6 months travel for free?
~ Können Kinder unter 6 Jahren kostenlos reisen?

What was the GDP of India in 2019 in US dollars?
= How high was the GDP of India in 2019 in US dollars?
= India's GDP in 2019 in US dollars
# What was the GDP of India in 2009 in US dollars?
% What was the GDP of India in 2019 in rupees?
@ What was the GDP of Indonesia in 2019 in US dollars?
~ Wie hoch war das BIP Indiens 2019 in US-Dollar?

Does the API support pagination?
= Is pagination supported by the API?
= Does the API have support for pagination?
! Does the API not support pagination?
? Does the API support filtering?
@ Does the Stripe API support pagination?
~ Unterstützt die API Paginierung?

How do I open the app without an account?
= How can I open the app without an account?
= Is there a way to open the app without an account?
! How do I open the app with an account?
? How do I delete the app without an account?
~ Wie öffne ich die App ohne Konto?
"""


class Pair(NamedTuple):
    """Two questions. `kind` is `paraphrase` where one's answer answers the other, else what sets them apart."""

    one: str
    other: str
    kind: str

    @property
    def same(self) -> bool:
        return self.kind == "paraphrase"


def _pairs(text: str) -> Iterator[Pair]:
    """A question's wordings with each other, and each of them with each of its near misses."""
    for block in text.strip().split("\n\n"):
        first, *lines = block.strip().splitlines()
        marked = [(line[0], line[2:]) for line in lines]
        wordings = [first, *(line for mark, line in marked if mark == "=")]
        for one, other in combinations(wordings, 2):
            yield Pair(one, other, "paraphrase")
        for mark, line in marked:
            if mark != "=":
                for wording in wordings:
                    yield Pair(wording, line, KINDS[mark])


_FIRST, _, _SECOND = _TEXT.partition("\n---\n")
TUNED: Final = tuple(_pairs(_FIRST))
HELD_OUT: Final = tuple(_pairs(_SECOND))
EVERY: Final = TUNED + HELD_OUT
