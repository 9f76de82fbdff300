/** A touch screen is all there is: Enter has to begin a new line, and focus brings up the keyboard. */
export const IS_TOUCH = matchMedia('(pointer: coarse) and (hover: none)').matches
