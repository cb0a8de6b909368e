"""The list of a data set of one's own, in the plain form of CSV."""

PLAIN = """path,identity,camera,split
crops/a.jpg,anna,hall,train
crops/b.jpg,ben,yard,train
crops/c.jpg,zoe,yard,query
crops/d.jpg,kim,hall,query
crops/e.jpg,zoe,hall,gallery
crops/f.jpg,0,yard,gallery
crops/g.jpg,-1,yard,gallery
"""
