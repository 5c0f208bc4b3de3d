"""Feeds as spreadsheets, networks and shops write them: headings in seven languages, numbered pictures, lists of attributes."""

import json

import pytest

from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig, check_feed, read_as, read_feed
from w2w.ingest.headings import pictures_in, plain

P = "https://x.test"
SHOWN = ("product_id", "title", "brand", "price", "currency", "category", "availability", "gender", "colour", "size")


def read(path, text: str, **options) -> tuple[list[dict], list[dict]]:
    path.write_text(text, encoding="utf-8")
    config = FeedConfig(uri=str(path), **options)
    check_feed(config)
    batches = list(read_feed(config))
    return [r for b in batches for r in b.rows.to_pylist()], [r for b in batches for r in b.rejects.to_pylist()]


def row_of(path, text: str, **options) -> dict:
    [row], rejects = read(path, text, **options)
    assert rejects == []
    return row


def pictures(row: dict) -> list[str]:
    return [one.removeprefix(f"{P}/") for one in (row["image_uri"], *(p["uri"] for p in row["more"] or []))]


@pytest.mark.parametrize(
    ("headings", "cells", "said"),
    [
        (
            "\ufeffArtikelnummer;Bezeichnung;Bild;Preis;Marke;Farbe;Größe;Geschlecht;Kategorie;Verfügbarkeit",
            f"A;Kleid;{P}/1.jpg;1.299,90 €;Acme;rot;38;Damen;Kleider;auf Lager",
            (1299.9, "EUR", "kleider", "in_stock", "Damen", "rot", "38"),
        ),
        (
            "Référence;Nom;Image;Prix;Marque;Couleur;Taille;Sexe;Catégorie;Disponibilité",
            f"A;Kleid;{P}/1.jpg;12,90;Acme;rouge;M;femme;Robes;Rupture de stock",
            (12.9, None, "robes", "out_of_stock", "femme", "rouge", "M"),
        ),
        (
            "Referencia;Nombre;Imagen;Precio;Marca;Color;Talla;Género;Categoría;Disponibilidad",
            f"A;Kleid;{P}/1.jpg;€ 12,90;Acme;rojo;M;mujer;Vestidos;Disponible",
            (12.9, "EUR", "vestidos", "in_stock", "mujer", "rojo", "M"),
        ),
        (
            "Codice articolo;Nome;Immagine;Prezzo;Marca;Colore;Taglia;Genere;Categoria;Disponibilità",
            f"A;Kleid;{P}/1.jpg;12,90;Acme;rosso;M;donna;Abiti;Esaurito",
            (12.9, None, "abiti", "out_of_stock", "donna", "rosso", "M"),
        ),
        (
            "Artikelnummer;Naam;Afbeelding;Prijs;Merk;Kleur;Maat;Geslacht;Categorie;Voorraad",
            f"A;Kleid;{P}/1.jpg;12,90;Acme;rood;M;dames;Jurken;0",
            (12.9, None, "jurken", "out_of_stock", "dames", "rood", "M"),
        ),
        (
            "Kod produktu;Nazwa;Zdjęcie;Cena;Producent;Kolor;Rozmiar;Płeć;Kategoria;Dostępność",
            f"A;Kleid;{P}/1.jpg;129,90 zł;Acme;czerwony;M;damska;Sukienki;dostępny",
            (129.9, "PLN", "sukienki", "in_stock", "damska", "czerwony", "M"),
        ),
    ],
)
def test_headings_are_known_in_other_languages(tmp_path, headings, cells, said):
    row = row_of(tmp_path / "p.csv", f"{headings}\n{cells}\n")
    assert tuple(row[name] for name in SHOWN) == ("A", "Kleid", "Acme", *said)
    assert row["warned"] is None


def test_an_export_of_a_german_woocommerce_is_one(tmp_path):
    head = "ID,Typ,Artikelnummer,Name,Veröffentlicht,Vorrätig?,Angebotspreis,Regulärer Preis,Kategorien,Bilder"
    head += ",Übergeordnetes Produkt,Attribut 1 Name,Attribut 1 Wert(e)"
    lines = [f'1,variable,tee,Tee,1,1,,,"Kleidung, Kleidung > Shirts",{P}/1.jpg,,Farbe,"Rot, Grün"']
    lines += [f'2,variation,tee-r,Tee rot,1,1,"9,90","19,90",,{P}/1.jpg,tee,Farbe,Rot']
    row = row_of(tmp_path / "wc.csv", "\n".join([head, *lines]) + "\n")
    assert (row["price"], row["regular_price"], row["category"]) == (9.9, 19.9, "kleidung > shirts")
    assert row["colour"] == "Rot, Grün"


def test_what_is_not_recognised_is_named_with_its_option(tmp_path):
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "p.csv", "Chiave,Scatto,Prezzo\n1,a.jpg,5\n")
    for said in ("feed.columns.product_id=NAME", "'Chiave'", "'Scatto'"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["image2", "image1", "name"], ["image1", "image2"]),
        (["Bild 1", "Bild 2"], ["Bild 1", "Bild 2"]),
        (["image[1].url", "image[0].url", "image[0].tag[0]"], ["image[0].url", "image[1].url"]),
        (["Product Image File - 1", "Product Image Sort - 1"], ["Product Image File - 1"]),
        (["Image URL 1", "Image URL 2", "Image 1", "Image 2"], ["Image URL 1", "Image URL 2"]),
        (["alternate_image_two", "alternate_image"], ["alternate_image", "alternate_image_two"]),
        (["option1", "size2", "price1"], []),
    ],
)
def test_pictures_may_be_numbered(names, found):
    assert pictures_in(names) == found


def test_plain_headings():
    assert [plain(name) for name in ("Größe", "GROESSE", "Product Name", "Attribut 2 Wert(e)", "產品")] == [
        *("size", "size", "productname", "attribute2values", ""),
    ]


TWO = f"sku,name,image1,image_2,image 3\n1,T,,{P}/2.jpg,{P}/3.jpg\n2,T,{P}/1.jpg,,{P}/3.jpg\n"


@pytest.mark.parametrize("options", [{}, {"columns": {"image": ["image1", "image_2", "image 3"]}}])
def test_pictures_of_several_columns_are_all_read(tmp_path, options):
    rows, rejects = read(tmp_path / "p.csv", TWO, **options)
    assert [pictures(row) for row in rows] == [["2.jpg", "3.jpg"], ["1.jpg", "3.jpg"]]
    assert rejects == []
    asked = FeedConfig(uri=str(tmp_path / "p.csv"), **options)
    assert ("images = image1 + image_2 + image 3" in read_as(asked)) == (not options)


def test_of_several_columns_the_first_with_a_value_counts(tmp_path):
    text = f"sku,de,en,image\n1,,Dress,{P}/1.jpg\n2,Kleid,Dress,{P}/2.jpg\n"
    rows, _ = read(tmp_path / "p.csv", text, columns={"title": ["de", "en"]})
    assert [row["title"] for row in rows] == ["Dress", "Kleid"]
    with pytest.raises(UsageError, match=r"no column 'fr' for feed\.columns\.title"):
        read(tmp_path / "p.csv", text, columns={"title": ["de", "fr"]})
    with pytest.raises(UsageError, match=r"feed\.columns\.title: names no column"):
        read(tmp_path / "p.csv", text, columns={"title": []})


def test_a_feed_with_our_names_may_have_those_of_others_too(tmp_path):
    text = "product_id,image,link,additional_image_link,color,item_group_id,product_type,type\n"
    row = row_of(tmp_path / "p.csv", f'{text}1,{P}/1.jpg,{P}/a,"{P}/2.jpg, {P}/3.jpg",red,g,Dresses,simple\n')
    assert (row["url"], row["colour"], row["group_id"], row["category"]) == (f"{P}/a", "red", "g", "dresses")
    assert pictures(row) == ["1.jpg", "2.jpg", "3.jpg"]
    assert "url = link" in read_as(FeedConfig(uri=str(tmp_path / "p.csv")))
    row = row_of(tmp_path / "q.csv", f"product_id,image,type\n1,{P}/1.jpg,simple\n")
    assert row["category"] == "etc"  # a type may be anything


def test_columns_without_a_heading_are_no_fault(tmp_path):
    row = row_of(tmp_path / "p.csv", f"sku;image;name;;\n1;{P}/1.jpg;T;;x\n")
    assert (row["title"], dict(row["attributes"])) == ("T", {"column 5": "x"})


def test_awin(tmp_path):
    text = (
        "aw_deep_link,product_name,aw_product_id,merchant_image_url,merchant_category,search_price,currency,brand_name,colour,"
    )
    text += "merchant_product_category_path,alternate_image,alternate_image_two,in_stock,Fashion:size\n"
    cells = f"https://aw.test/?p=1,Dress,111,{P}/1.jpg,Dresses,19.90,GBP,Acme,red,Women > Dresses,{P}/2.jpg,{P}/3.jpg,1,M\n"
    row = row_of(tmp_path / "awin.csv", text + cells)
    assert tuple(row[name] for name in SHOWN) == (
        *("111", "Dress", "Acme", 19.9, "GBP", "women > dresses", "in_stock", None, "red", "M"),
    )
    assert pictures(row) == ["1.jpg", "2.jpg", "3.jpg"]


def test_bigcommerce_lists_options_and_rules(tmp_path):
    head = "Item Type,Product ID,Product Name,Product Code/SKU,Brand Name,Price,Sale Price,Product Visible?,Category"
    head += ",Product Image File - 1,Product Image Sort - 1,Product Image File - 2\n"
    lines = f"Product,77,Dress,D1,Acme,19.90,15.00,Y,Women/Dresses;Shop All,{P}/1.jpg,0,{P}/2.jpg\n"
    lines += '"  SKU",,[S]Size=M,D1-M,,,,,,,,\n"  Rule",,,D1-M,,,,Y,,,,\n' + f"Product,78,Hidden,D2,,9,,N,Women,{P}/9.jpg,,\n"
    row = row_of(tmp_path / "bc.csv", head + lines, category_map={"Women/Dresses": "dress"})
    assert (row["product_id"], row["price"], row["regular_price"], row["category"]) == ("77", 15, 19.9, "dress")
    assert pictures(row) == ["1.jpg", "2.jpg"]


SHOPIFY = {
    "products": [
        {
            "id": 1,
            "title": "Dress",
            "vendor": "Acme",
            "product_type": "Dresses",
            "variants": [{"id": 11, "available": False, "price": "25.00"}, {"id": 12, "available": True, "price": "20.00"}],
            "images": [{"id": 5, "src": f"{P}/1.jpg"}, {"id": 6, "src": f"{P}/2.jpg"}],
            "options": [{"name": "Size", "values": ["S", "M"]}, {"name": "Color", "values": ["red"]}],
        },
        {
            "id": 2,
            "title": "Hat",
            "variants": [{"id": 21, "price": "5.00", "available": True}],
            "images": [{"src": f"{P}/3.jpg"}],
        },
    ]
}


@pytest.mark.parametrize("text", [json.dumps(SHOPIFY), json.dumps({"count": 2, "next": None} | SHOPIFY, indent=1)])
def test_shopifys_products_json(tmp_path, text):
    rows, rejects = read(tmp_path / "products.json", text, currency="EUR")
    assert rejects == []
    assert [tuple(row[name] for name in SHOWN) for row in rows] == [
        ("1", "Dress", "Acme", 20, "EUR", "dresses", "in_stock", None, "red", "S, M"),
        ("2", "Hat", None, 5, "EUR", "etc", "in_stock", None, None, None),
    ]
    assert [pictures(row) for row in rows] == [["1.jpg", "2.jpg"], ["3.jpg"]]


def test_json_lines_that_hold_a_list_are_lines(tmp_path):
    lines = [{"sku": str(n), "image": "a.jpg", "items": [{"x": 1}]} for n in range(3)]
    rows, _ = read(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)))
    assert len(rows) == 3


@pytest.mark.parametrize(
    "attributes",
    [
        {"colour": "red", "size": ["S", "M"], "gender": "women"},
        [{"name": "Color", "value": "red"}, {"name": "Size", "options": ["S", "M"]}, {"key": "gender", "value": "women"}],
    ],
)
def test_attributes_of_an_object_or_list_are_read(tmp_path, attributes):
    one = {
        "id": "a",
        "image": f"{P}/1.jpg",
        "attributes": attributes,
        "categories": [{"name": "Women"}, {"name": "Women > Tops"}],
    }
    row = row_of(tmp_path / "p.json", json.dumps([one]))
    assert (row["colour"], row["size"], row["gender"]) == ("red", "S, M", "women")
    assert row["category"] == "women > tops"


HEUREKA = f"""<?xml version="1.0"?><SHOP><SHOPITEM><ITEM_ID>a</ITEM_ID><PRODUCTNAME>Dress</PRODUCTNAME><URL>{P}/a</URL>
<IMGURL>{P}/1.jpg</IMGURL><IMGURL_ALTERNATIVE>{P}/2.jpg</IMGURL_ALTERNATIVE><IMGURL_ALTERNATIVE>{P}/3.jpg</IMGURL_ALTERNATIVE>
<PRICE_VAT>299,90</PRICE_VAT><PARAM><PARAM_NAME>Barva</PARAM_NAME><VAL>red</VAL></PARAM><PARAM><PARAM_NAME>Velikost</PARAM_NAME>
<VAL>M</VAL></PARAM><MANUFACTURER>Acme</MANUFACTURER><CATEGORYTEXT>Moda | Dresses</CATEGORYTEXT></SHOPITEM></SHOP>"""
CENEO = f"""<?xml version="1.0"?><offers version="1"><o id="a" url="{P}/a" price="299.90" avail="1" stock="5">
<cat><![CDATA[Moda | Dresses]]></cat><name>Dress</name>
<imgs><main url="{P}/1.jpg"/><i url="{P}/2.jpg"/><i url="{P}/3.jpg"/></imgs>
<attrs><a name="Producent">Acme</a><a name="Kolor">red</a><a name="Rozmiar">M</a></attrs></o></offers>"""


@pytest.mark.parametrize(("text", "stock"), [(HEUREKA, None), (CENEO, "in_stock")])
def test_xml_of_price_comparisons(tmp_path, text, stock):
    row = row_of(tmp_path / "p.xml", text)
    assert tuple(row[name] for name in SHOWN) == (
        *("a", "Dress", "Acme", 299.9, None, "moda | dresses", stock, None, "red", "M"),
    )
    assert (row["url"], pictures(row)) == (f"{P}/a", ["1.jpg", "2.jpg", "3.jpg"])


def test_names_of_hostile_xml_break_nothing(tmp_path):
    text = (
        f'<offers><o id="a"><image>{P}/1.jpg</image><a name="k[]">1</a><k>1</k><k>2</k><k>3</k><a name="id">b</a></o></offers>'
    )
    assert row_of(tmp_path / "p.xml", text)["product_id"] == "a"
