"""What each channel's figures became: durable, in gapless order, for whoever keeps a copy of them."""
