"""Synthetic multi-site brain tumour data in the BraTS layouts, to try and to test everything without patients' data.

`generate.generate(out, settings.DemoDataSettings(...))` writes a data set; `picture.draw_overview` shows it. Each
case has an elastically deformed anatomy, an HGG or LGG tumour (necrotic and non-enhancing core, oedema, enhancing
tumour), confounders that resemble tumour in one modality or another, and the marks of its site's scanners. The images
are meant to make training and evaluation non-trivial; they are no substitute for clinical data.
"""
