"""What the ablations of Sec. 4.6 and appendix C.2 put in the place of parts of UniAD."""
