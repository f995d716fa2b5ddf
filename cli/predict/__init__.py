"""`mixer predict`: what do these images show?"""
