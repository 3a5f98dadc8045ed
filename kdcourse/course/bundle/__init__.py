"""`kdcourse bundle`: the course for a room without a network, made, checked and handed out.

wheels     the packages of this environment, each a wheel
packing    an archive in pieces, its manifest, and the program that goes with it
making     wheels, assets, editions and site, packed
install    that program: a Python with its standard library checks, fetches and installs
serving    the three files for a room, and who has fetched how much
"""
