"""The tiny world and its language, from which the embedded base is made; a reader of the method may skip it all.

In reading order:
    scene.py      what can be seen: the tables of attributes, the Scene, which scenes exist
    words.py      a scene as a caption            asking.py   questions about a scene, with answers
    pen.py        colors, and lines in any size   heads.py, clothes.py, props.py, figure.py, places.py   what is drawn
    world.py      draws a scene; the one door to all of the above
    language.py   personas, what is true of them, how they talk: the one door to the tables in
                  people.py, facts.py, phrases.py, moments.py and tales.py, which need no reading
    coco.py       the pictures of Coco, the shipped character, whom no training of the base sees
    pictures.py   the pictures that all learn from, on disk
    pretrain.py   trains everything that tiny/ holds: the base here, the judges of the rewards in judges.py
"""
