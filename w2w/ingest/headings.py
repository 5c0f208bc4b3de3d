"""What the headings of feeds mean: without case, accents and signs, and in English where they are German, French, Spanish,
Italian, Dutch or Polish."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

_LETTERS = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})
# the words of each language by what they mean, as plain headings; ä stands for a and ae
_WORDS = {
    "sku": "artikelnummer artikelnr artnr artikelcode bestellnummer produktnummer produktcode productnummer "
    "reference refproduit referencia codigo codigoproducto riferimento codice codicearticolo codiceprodotto "
    "indeks kod kodproduktu numerkatalogowy symbol",
    "productid": "produktid artikelid idproduit identifiant identifiantproduit idproducto idprodotto idproduktu idartikel",
    "name": "bezeichnung artikelbezeichnung produktbezeichnung artikelname produktname nom nomduproduit nomproduit libelle "
    "designation nombre nombreproducto nombredelproducto nome nomeprodotto naam productnaam artikelnaam nazwa nazwaproduktu",
    "title": "titel produkttitel titre titulo titolo tytul",
    "brand": "marke hersteller marque fabricant marca fabricante marchio produttore merk fabrikant marka producent",
    "brands": "marken marques marcas marchi merken",
    "price": "preis verkaufspreis bruttopreis einzelpreis vkpreis vkbrutto prix prixttc prixdevente precio pvp precioventa "
    "prezzo prezzodivendita prijs verkoopprijs cena cenabrutto cenasprzedazy",
    "regularprice": "regulaererpreis regularerpreis normalpreis tarifregulier prixregulier precionormal precioregular "
    "prezzodilistino normaleprijs reguliereprijs cenaregularna",
    "saleprice": "angebotspreis aktionspreis sonderpreis tarifpromo prixpromo prixpromotionnel prixsolde preciorebajado "
    "preciooferta precioespecial prezzoscontato prezzoinofferta prezzoofferta prezzospeciale actieprijs aanbiedingsprijs "
    "kortingsprijs cenapromocyjna",
    "currency": "waehrung wahrung devise monnaie moneda divisa valuta waluta",
    "category": "kategorie warengruppe produktkategorie categorie categorieproduit categoria categoriaproducto "
    "productcategorie kategoria kategoriaproduktu",
    "categories": "kategorien categorias kategorieproduktow categorieen",
    "producttype": "produkttyp artikelart typeproduit tipoproducto tipoprodotto typproduktu",
    "type": "typ tipo",
    "url": "produktlink produkturl artikellink artikelurl lien lienproduit urlproduit enlace urlproducto urlprodotto "
    "linkprodotto adresurl linkdoproduktu odnosnik",
    "image": "bild bildlink produktbild hauptbild artikelbild imagen imagenprincipal immagine afbeelding hoofdafbeelding "
    "zdjecie zdjecieglowne obraz obrazek foto fotografia imageprincipale",
    "imageurl": "bildurl bildadresse urlimage lienimage urlimagen enlaceimagen urlimmagine linkimmagine afbeeldingurl "
    "afbeeldinglink urlzdjecia linkdozdjecia",
    "images": "bilder produktbilder imagenes immagini afbeeldingen zdjecia obrazy fotos",
    "additionalimages": "weiterebilder zusatzbilder zusaetzlichebilder zusatzlichebilder imagessupplementaires autresimages "
    "imagenesadicionales otrasimagenes immaginiaggiuntive extraafbeeldingen dodatkowezdjecia",
    "availability": "verfuegbarkeit verfugbarkeit disponibilite disponibilidad disponibilita beschikbaarheid dostepnosc",
    "instock": "vorraetig vorratig auflager lagernd enstock enexistencias opvoorraad wmagazynie",
    "gender": "geschlecht genre sexe genero sexo genere sesso geslacht plec pohlavi",
    "colour": "farbe couleur colore kleur kolor colores barva",
    "size": "groesse grosse groessen grossen taille tailles talla tallas tamano taglia taglie maat maten rozmiar "
    "rozmiary velikost",
    "groupid": "gruppenid variantengruppe iddegroupe idgrupo idgruppo groepid idgrupy",
    "published": "veroeffentlicht veroffentlicht publie publicado pubblicato gepubliceerd opublikowano",
    "parent": "uebergeordnetesprodukt ubergeordnetesprodukt uebergeordnet ubergeordnet superior principal genitore "
    "produktnadrzedny",
    "permalink": "enlacepermanente",
    "stock": "lagerbestand bestand voorraad existencias giacenza stanmagazynowy",
}
_MEANS = {word: english for english, words in _WORDS.items() for word in words.split()}
_MEANS |= {"attribut{}name": "attribute{}name", "attribut{}werte": "attribute{}values", "attribut{}wert": "attribute{}values"}
_COUNTED = {"alternateimage": 2, "alternateimagetwo": 3, "alternateimagethree": 4, "alternateimagefour": 5}  # Awin's
# words of a numbered heading: image_1, Bild 2, Product Image File - 3, image[0].url; of several kinds the first counts
_PICTURES = "imageurl imagelink imagesrc imageuri pictureurl productimageurl image img picture photo productimage imagepath"
_PICTURES += " productimagefile imagefile additionalimagelink additionalimageurl additionalimage alternateimage imgurl"


def letters(text: str) -> str:
    """The letters and digits of a text, in small letters, without accents."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS)))


@lru_cache(maxsize=10_000)
def plain(name: str) -> str:
    """The letters and digits of a heading, in small letters, without accents, in English."""
    bare = letters(name)
    stem, digits, tail = re.fullmatch(r"([a-z]*)([0-9]*)(.*)", bare).groups()  # type: ignore[union-attr]
    if digits:
        return _MEANS.get(f"{stem}{{}}{tail}", f"{_MEANS.get(stem, stem)}{{}}{tail}").format(digits)
    return _MEANS.get(bare, bare)


def pictures_in(names: Iterable[str]) -> Sequence[str]:
    """The headings that number the pictures of a product, in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        heading = plain(name)
        told = re.fullmatch(r"([a-z]+?)([0-9]{1,2})([a-z]*)", heading)
        if told and told[1] + told[3] in _PICTURES.split():
            found.setdefault(told[1] + told[3], []).append((int(told[2]), name))
        elif heading in _COUNTED:
            found.setdefault("alternateimage", []).append((_COUNTED[heading], name))
    best = min(found, key=_PICTURES.split().index, default=None)
    listed = sorted(found[best], key=lambda one: one[0]) if best else []
    return [name for _, name in listed]
