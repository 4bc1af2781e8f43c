"""Where footage comes from: directories on cameras, watched folders, and their erasing."""
