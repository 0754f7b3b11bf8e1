-- An error cannot be allowed, nor another rule, nor from two lines above.
-- weir: allow global, lifetime

first = 1 -- weir: allow compare
avi.vs.log(first, nowhere()) -- weir: allow global
